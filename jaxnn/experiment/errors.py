"""What every command reports in one line, with exit code 2."""


class UserError(Exception):
    """Bad input: one line that names the flag, file or tensor and says what to do."""
