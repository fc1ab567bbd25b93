"""How messages show what a file says: one line, not too long."""

import json
from typing import Any

LONGEST = 60


def show(value: Any) -> str:
    """Returns a value as JSON, shortened to 60 characters."""
    return shortened(json.dumps(value))


def shortened(text: str) -> str:
    """Returns a text of at most 60 characters."""
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
