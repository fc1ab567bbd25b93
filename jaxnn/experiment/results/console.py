"""The console that programs print their tables on."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPED = 120
"""Columns where output goes to a pipe or a file: rich's 80 cut digits off a table."""


def table_console(quiet: bool = False, piped: int = PIPED) -> "Console":
    """Returns a console as wide as the terminal, or of `piped` columns without one.

    Args:
      quiet: print nothing.
      piped: columns where output goes to a pipe or a file.
    """
    # A process that prints no table, as torch's half, does without rich.
    from rich.console import Console

    return Console(quiet=quiet, width=None if sys.stdout.isatty() else piped)
