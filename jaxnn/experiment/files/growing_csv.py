"""A CSV file that grows while a run goes on."""

import csv
import io
import os
import pathlib
from collections.abc import Iterable, Sequence


class GrowingCsv:
    """Appends rows to a file; they are in it when `write` returns.

    Args:
      path: of the file, which the first `write` makes.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        # A descriptor that stays open, and os.write without a buffer: opening the file
        # each time takes longer than a short epoch.
        self._file = -1

    def write(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Appends rows, with the header before the first of a new file."""
        # csv would write a NumPy float as its `repr`.
        rows = [[*map(str, row)] for row in rows]
        if self._file < 0:
            # A resumed run appends to a file that has its header.
            if not self._path.exists():
                rows = [[*header], *rows]
            self._file = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        os.write(self._file, text.getvalue().encode())

    def close(self) -> None:
        """Closes the file; the next `write` opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
