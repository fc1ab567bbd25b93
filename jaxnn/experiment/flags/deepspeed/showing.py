"""How messages show what a file says: one line, not too long."""

import json
from typing import Any

LONGEST = 60


def show(value: Any) -> str:
    """Returns a value as JSON, shortened to 60 characters."""
    return shortened(json.dumps(value))


def one_line(text: str) -> str:
    """Returns a name or message without line breaks and other invisible characters."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1]
        for character in text
    )


def shortened(text: str) -> str:
    """Returns a text of at most 60 characters."""
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
