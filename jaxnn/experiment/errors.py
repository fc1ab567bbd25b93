"""Errors that every command reports in one line, with exit code 2."""


class UserError(Exception):
    """Bad input: one line that names the flag, file or tensor and says what to do."""


class MissingData(UserError):
    """A data set that is not at hand: no such file, or it cannot be downloaded.

    Programs that run many experiments count these apart from those that fail.
    """
