"""Standard streams as a command finds them: closed, cut off by `| head`, interrupted.

Imported before anything that takes long, by the packages themselves.
"""

import contextlib
import os
import sys
from types import TracebackType

INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE has ended."""


def say_interrupted_while_importing() -> None:
    """Makes Ctrl-C during the imports of `python -m PACKAGE` one line.

    A program that imports the package as a library keeps its own hook.
    """
    # Python runs the package's __init__ under this name until it has found the module.
    if sys.argv[:1] == ["-m"]:
        sys.excepthook = _without_traceback


def open_closed_streams() -> None:
    """Opens the standard streams that were closed (`>&-`), on nothing.

    The next file that the program opens would otherwise be its stdout.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            nothing = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nothing)


def flush() -> int:
    """Writes out what was printed; returns an exit code, 0 if somebody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return drop_output()
    return 0


def drop_output() -> int:
    """Drops what is still printed; returns the exit code of a broken pipe."""
    # Python flushes once more on the way out, and would report the pipe again.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _without_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
