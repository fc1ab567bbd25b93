"""Errors that every command reports in one line, with exit code 2."""

import json


class UserError(Exception):
    """Bad input: one line that names the flag, file or tensor and says what to do."""


class MissingData(UserError):
    """A data set that is not at hand: no such file, or it cannot be downloaded.

    Programs that run many experiments count these apart from those that fail.
    """


def one_line(text: str) -> str:
    """Returns a name or message without line breaks and other invisible characters."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1]
        for character in text
    )
