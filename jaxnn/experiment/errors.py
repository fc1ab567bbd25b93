"""The exception for bad input, which every command turns into exit code 2."""


class UserError(Exception):
    """Bad input: one line that names the flag, file or tensor and says what to do."""
