"""CSV tables: cells by column with their line numbers, and their encodings."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.read_file import read_text
from jaxnn.experiment.errors import UserError

# Distinct texts in a column; each becomes an input.
MOST_CATEGORIES = 1000
LARGEST = float(np.finfo(np.float32).max)
EMPTY = "is empty; fill it in or remove the row"


class TableFile(NamedTuple):
    """The cells of a file by column.

    Attributes:
      path: path of the file.
      columns: name -> stripped cells, in the order of the header.
      lines: line number of each row in the file, from 1.
    """

    path: pathlib.Path
    columns: dict[str, list[str]]
    lines: list[int]

    def error(self, row: int, column: str, problem: str) -> UserError:
        """Returns an error that names the line and the column of a cell."""
        return UserError(
            f"--data_path: {self.path}:{self.lines[row]}: column {column!r} {problem}"
        )


def read(path: pathlib.Path) -> TableFile:
    """Reads a UTF-8 CSV file: a header, then rows with as many cells.

    Blank lines are skipped.

    Raises:
      UserError: the file cannot be read, has no rows, names a column twice, or has a
        row of another length.
    """
    # Cells in quotes may hold line breaks: csv wants them untranslated, and the number
    # of a row is not that of its line.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(
            f"--data_path: {path}:{reader.line_num}: not CSV: {error}"
        ) from None
    if not rows:
        raise UserError(
            f"--data_path: {path}: is empty; the first line must name the columns"
        )

    _, names = rows.pop(0)
    header = _header(path, [name.strip() for name in names])
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"--data_path: {path}:{line}: has {len(cells)} cells, the header "
                f"{len(header)}"
            )
    if not rows:
        raise UserError(f"--data_path: {path}: has a header but no rows")

    columns = zip(*([cell.strip() for cell in cells] for _, cells in rows))
    return TableFile(
        path,
        {name: list(cells) for name, cells in zip(header, columns)},
        [line for line, _ in rows],
    )


def _header(path: pathlib.Path, names: list[str]) -> list[str]:
    for place, name in enumerate(names):
        if not name:
            raise UserError(
                f"--data_path: {path}: column {place} of the header has no name"
            )
        if name in names[:place]:
            raise UserError(
                f"--data_path: {path}: the header names column {name!r} twice"
            )
    # Numbers alone are a first row of data: the file has no header.
    if all(number(name) is not None for name in names):
        raise UserError(
            f"--data_path: {path}: the first line must name the columns, got "
            f"{','.join(names)[:60]}"
        )
    return names


def number(cell: str) -> float | None:
    """Returns the number in a cell, or None."""
    # Python reads 1_000 as a number; no spreadsheet does.
    if "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def is_numeric(table: TableFile, column: str) -> bool:
    """Returns True if a column holds numbers, False if it holds text.

    Raises:
      UserError: a cell is empty or not finite, or holds text in a column of mostly
        numbers.
    """
    cells = table.columns[column]
    if _all_numbers(cells) is not None:
        return True

    values = [number(cell) for cell in cells]
    for row, (cell, value) in enumerate(zip(cells, values)):
        if not cell:
            raise table.error(row, column, EMPTY)
        if value is not None and not math.isfinite(value):
            raise table.error(
                row,
                column,
                f"is {cell}, not a finite number; correct it or remove the row",
            )

    # A few texts among numbers are typing errors, not categories.
    texts = [row for row, value in enumerate(values) if value is None]
    if 0 < len(texts) <= len(values) / 2:
        raise table.error(
            texts[0],
            column,
            f"holds {cells[texts[0]]!r}, not a number as most of its rows do; correct "
            "it",
        )
    return not texts


def numbers(table: TableFile, column: str) -> np.ndarray:
    """Returns the numbers of a column, [rows] float32.

    Raises:
      UserError: a cell is not a number that float32 can represent.
    """
    values = _all_numbers(table.columns[column])
    if values is None:
        row, cell = next(
            (row, cell)
            for row, cell in enumerate(table.columns[column])
            if not _fits(number(cell))
        )
        raise table.error(
            row,
            column,
            f"holds {cell!r}, not a finite number in float32's range"
            if cell
            else EMPTY,
        )
    return values.astype(np.float32)


def _all_numbers(cells: Sequence[str]) -> np.ndarray | None:
    """Returns [rows] float64 if float32 can represent all cells, else None."""
    # Most columns hold numbers: one `try` around all cells instead of one around each.
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    has_underscore = any("_" in cell for cell in cells)
    # NaN fails the comparison too.
    if has_underscore or not (np.abs(values) <= LARGEST).all():
        return None
    return values


def _fits(value: float | None) -> bool:
    return value is not None and abs(value) <= LARGEST


def categories(
    table: TableFile, column: str, rows: Sequence[int] | np.ndarray
) -> tuple[str, ...]:
    """Returns the sorted distinct texts of a column in some rows.

    Raises:
      UserError: there are more than `MOST_CATEGORIES`.
    """
    cells = table.columns[column]
    found = sorted({cells[row] for row in rows})
    if len(found) > MOST_CATEGORIES:
        raise UserError(
            f"--features: column {column!r} of {table.path} has {len(found)} different "
            f"texts, each an input of its own, more than {MOST_CATEGORIES}; leave it "
            "out of --features"
        )
    return tuple(found)


def one_hot(table: TableFile, column: str, known: Sequence[str]) -> np.ndarray:
    """Returns [rows, categories] float32, with 1 at the text of the cell.

    The row of an unknown text is all 0.
    """
    places = {text: place for place, text in enumerate(known)}
    codes = np.array([places.get(cell, -1) for cell in table.columns[column]])
    return (codes[:, None] == np.arange(len(known))).astype(np.float32)
