"""Reads a CSV file: a header or none, then rows, into cells by column."""

import csv
import itertools
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from jaxnn.experiment.data.read_file import decoded, is_packed, read_start, read_text
from jaxnn.experiment.data.tables import cells, dialect
from jaxnn.experiment.data.tables.cells import Cells
from jaxnn.experiment.data.tables.dialect import Asked, Dialect
from jaxnn.experiment.errors import UserError

# Bytes from which on a file is read by pyarrow, whose import takes a while.
FAST_FROM = 2**22

# Characters of a first line that a message repeats.
SHOWN = 60


class TableFile(NamedTuple):
    """The cells of a file by column.

    Attributes:
      path: path of the file.
      dialect: how it is written.
      columns: name -> cells, in the order of the file.
      num_rows: number of rows.
    """

    path: pathlib.Path
    dialect: Dialect
    columns: dict[str, Cells]
    num_rows: int

    def line(self, row: int) -> int:
        """Returns the line of a row in the file, from 1; it reads the file again."""
        rows = _rows(self.path, read_text(self.path), self.dialect.delimiter)
        line, _ = next(itertools.islice(rows, row + self.dialect.header, None))
        return line

    def error(self, row: int, column: str, problem: str) -> UserError:
        """Returns an error that names the line and the column of a cell."""
        return UserError(
            f"--data_path: {self.path}:{self.line(row)}: column {column!r} {problem}"
        )


def read(
    path: pathlib.Path,
    asked: Asked = Asked(),  # noqa: B008 (an immutable tuple)
    names: Sequence[str] = (),
    texts: Collection[str] = (),
) -> TableFile:
    """Reads a UTF-8 CSV file: names of the columns, then rows with as many cells.

    Blank lines are skipped. Without a header the columns are x0, x1, ....

    Args:
      path: the file, perhaps packed with gzip.
      asked: what is known of the dialect; the rest is found out.
      names: columns that the file is to have, if they are known.
      texts: columns whose numbers are kept as the texts that they were.

    Raises:
      UserError: the file cannot be read, has no rows, names a column twice, or has a
        row of another length.
    """
    is_large = path.is_file() and path.stat().st_size >= FAST_FROM
    if is_large and not is_packed(path):
        # A character cut in two at the end is no fault of the file.
        start = decoded(path, read_start(path, dialect.CHARACTERS), is_cut=True)
        found = dialect.detect(start, asked, names)
        table = _read_fast(path, start, found, texts)
        if table:
            return table
    text = read_text(path)
    return _read_exact(path, text, dialect.detect(text, asked, names), texts)


def _read_fast(
    path: pathlib.Path, start: str, found: Dialect, texts: Collection[str]
) -> TableFile | None:
    """Reads a file with pyarrow; None: `_read_exact` has to, and says what is wrong."""
    from jaxnn.experiment.data.tables import arrow_reader

    # pyarrow counts blank lines before a header.
    if start.startswith(("\n", "\r")):
        return None
    _, first = next(_rows(path, start, found.delimiter))
    names = _names(path, first, found)
    columns = arrow_reader.read(path, first, names, found, texts)
    if not columns:
        return None
    return TableFile(path, found, columns, cells.num_rows(columns[names[0]]))


def _read_exact(
    path: pathlib.Path, text: str, found: Dialect, texts: Collection[str]
) -> TableFile:
    rows = list(_rows(path, text, found.delimiter))
    if not rows:
        raise UserError(
            f"--data_path: {path}: is empty; the first line must name the columns"
        )
    names = _names(path, rows[0][1], found)
    del rows[: found.header]
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"--data_path: {path}:{line}: has {len(row)} cells, the "
                f"{'header' if found.header else 'first line'} {len(names)}: "
                f"{', '.join(names)[:SHOWN]!r}"
            )
    if not rows:
        raise UserError(f"--data_path: {path}: has a header but no rows")
    by_column = zip(*([cell.strip() for cell in row] for _, row in rows))
    columns = {
        name: cells.of(column, found.decimal, name in texts)
        for name, column in zip(names, by_column)
    }
    return TableFile(path, found, columns, len(rows))


def _rows(
    path: pathlib.Path, text: str, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row that is not blank."""
    # A cell may hold line breaks: the number of a row is not that of its line.
    reader = dialect.csv_reader(text, delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(
            f"--data_path: {path}:{reader.line_num}: not CSV: {error}"
        ) from None


def _names(path: pathlib.Path, first: Sequence[str], found: Dialect) -> list[str]:
    """Returns the names of the columns, given the cells of the first row."""
    if not found.header:
        return [f"x{place}" for place in range(len(first))]
    names = [name.strip() for name in first]
    for place, name in enumerate(names):
        if not name:
            raise UserError(
                f"--data_path: {path}: column {place} of the header has no name: "
                f"{found.delimiter.join(names)[:SHOWN]!r}"
            )
        if name in names[:place]:
            raise UserError(
                f"--data_path: {path}: the header names column {name!r} twice"
            )
    return names
