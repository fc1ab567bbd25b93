"""CSV files: a header and rows of cells, each known by its line, and the numbers or
categories in a column."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.read_file import read_text
from jaxnn.experiment.errors import UserError

MOST_CATEGORIES = 1000
"""Different texts in a column; each is an input of its own."""
LARGEST = float(np.finfo(np.float32).max)
EMPTY = "is empty; fill it in or remove the row"


class TableFile(NamedTuple):
    """A file's cells by column.

    Attributes:
      path: of the file.
      columns: name -> stripped cells, in the header's order.
      lines: line number in the file of each row, from 1.
    """

    path: pathlib.Path
    columns: dict[str, list[str]]
    lines: list[int]

    def error(self, row: int, column: str, problem: str) -> UserError:
        """An error at a cell."""
        return UserError(
            f"--data_path: {self.path}:{self.lines[row]}: column {column!r} {problem}"
        )


def read(path: pathlib.Path) -> TableFile:
    """Reads a CSV file in UTF-8: a header row, then rows of as many cells; blank lines
    do not count.

    Raises:
      UserError: the file cannot be read, has no rows, a column twice, or a row of
        another length.
    """
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
    header = _header(path, [name.strip() for name in rows.pop(0)[1]])
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
    if all(number(name) is not None for name in names):
        raise UserError(
            f"--data_path: {path}: the first line must name the columns, got "
            f"{','.join(names)[:60]}"
        )
    return names


def number(cell: str) -> float | None:
    """The number that a cell holds, or None."""
    try:
        return (
            None if "_" in cell else float(cell)
        )  # Python reads 1_000 as a number; no spreadsheet does
    except ValueError:
        return None


def is_numeric(table: TableFile, column: str) -> bool:
    """Whether a column holds numbers rather than text.

    Raises:
      UserError: a cell is empty or not finite, or holds text in a column that is mostly
        numbers.
    """
    if _all_numbers(table.columns[column]) is not None:
        return True
    values = [number(cell) for cell in table.columns[column]]
    for row, (cell, value) in enumerate(zip(table.columns[column], values)):
        if not cell or (value is not None and not math.isfinite(value)):
            raise table.error(
                row,
                column,
                f"is {cell}, not a finite number; correct it or remove the row"
                if cell
                else EMPTY,
            )
    texts = [row for row, value in enumerate(values) if value is None]
    if 0 < len(texts) <= len(values) / 2:
        raise table.error(
            texts[0],
            column,
            f"holds {table.columns[column][texts[0]]!r}, not a number as most of its "
            "rows do; correct it",
        )
    return not texts


def numbers(table: TableFile, column: str) -> np.ndarray:
    """[rows] float32.

    Raises:
      UserError: a cell is not a number that float32 can hold.
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
    """[rows] float64 if all cells are numbers that float32 can hold: most columns, at
    little cost."""
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    return (
        None
        if any("_" in cell for cell in cells) or not (np.abs(values) <= LARGEST).all()
        else values
    )


def _fits(value: float | None) -> bool:
    return value is not None and abs(value) <= LARGEST


def categories(
    table: TableFile, column: str, rows: Sequence[int] | np.ndarray
) -> tuple[str, ...]:
    """The sorted distinct texts of a column among some rows.

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
    """[rows, categories] float32: 1 at the cell's text, all 0 where it is none of the
    known ones."""
    places = {text: place for place, text in enumerate(known)}
    codes = np.array([places.get(cell, -1) for cell in table.columns[column]])
    return (codes[:, None] == np.arange(len(known))).astype(np.float32)
