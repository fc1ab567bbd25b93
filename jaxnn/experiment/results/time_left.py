"""How much longer work goes on, judged by what is done of it."""

import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Piece = TypeVar("Piece")
ERASE = "\x1b[K"
"""To the end of the line."""
EVERY = 30.0
"""Seconds between the lines of `watched`, where there is no terminal."""


def text(seconds: float) -> str:
    """Returns a duration as people say it: `40 s`, `12 min`, `3.1 h`."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class TimeLeft:
    """Counts the pieces of a work as they begin.

    Args:
      sizes: what each piece is expected to take, above 0, in one unit.
      clock: seconds.
    """

    def __init__(
        self, sizes: Sequence[float], clock: Callable[[], float] = time.monotonic
    ):
        self._sizes = sizes
        self._clock = clock
        self._start = clock()
        self._begun = 0

    def next(self) -> str:
        """Begins a piece; returns e.g. `4 of 20, 12 min left`."""
        done = sum(self._sizes[: self._begun])
        left = sum(self._sizes[self._begun :])
        self._begun += 1
        count = f"{self._begun} of {len(self._sizes)}"
        if not done:
            return count
        seconds = (self._clock() - self._start) / done * left
        return f"{count}, {text(seconds)} left"


def watched(what: str, pieces: Sequence[Piece]) -> Generator[Piece, None, None]:
    """Yields pieces of like size, and says on stderr how far they are.

    On a terminal in a line that is written over and goes at the end; elsewhere in a
    line each `EVERY` seconds, and so not at all in short work.

    Args:
      what: begins the line.
      pieces: the work.
    """
    left = TimeLeft([1.0] * len(pieces), time.monotonic)
    on_terminal = sys.stderr.isatty()
    said = time.monotonic()
    try:
        for piece in pieces:
            line = f"{what} {left.next()}"
            if on_terminal:
                print(f"\r{line}{ERASE}", end="", file=sys.stderr, flush=True)
            elif time.monotonic() - said >= EVERY:
                said = time.monotonic()
                print(line, file=sys.stderr, flush=True)
            yield piece
    finally:
        if on_terminal:
            print(f"\r{ERASE}", end="", file=sys.stderr, flush=True)
