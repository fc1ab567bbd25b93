"""Which delimiter, which decimal mark and whether a header: found out or told."""

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnn.experiment.data.tables.cells import number

# Rows that are looked at, and the characters that they may have.
ROWS = 1000
CHARACTERS = 2**16

# In the order of preference where several fit equally well.
DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}

DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
DECIMAL_POINT = re.compile(r"[+-]?[\d,]*\.\d+([eE][+-]?\d+)?")

Rows = Sequence[Sequence[str]]


class Dialect(NamedTuple):
    """How a file writes a table.

    Attributes:
      delimiter: character between cells.
      decimal: mark before decimals, "." or ",".
      header: True if the first line names the columns.
    """

    delimiter: str = ","
    decimal: str = "."
    header: bool = True


class Asked(NamedTuple):
    """What flags say about the dialect.

    Attributes:
      delimiter: a character, or "tab"; empty: find out.
      decimal: "." or ","; empty: find out.
      noheader: True if the first line holds data; False: find out.
    """

    delimiter: str = ""
    decimal: str = ""
    noheader: bool = False


def detect(text: str, asked: Asked, names: Sequence[str] = ()) -> Dialect:
    """Returns the dialect of a file.

    Args:
      text: the file, or its beginning.
      asked: what is known already.
      names: columns that the file is to have; a first line with all of them is the
        header.
    """
    text = text[:CHARACTERS]
    delimiter = {"tab": "\t"}.get(asked.delimiter, asked.delimiter)
    delimiter = delimiter or max(DELIMITERS, key=lambda mark: _fit(text, mark))
    rows = _rows(text, delimiter)
    decimal = asked.decimal or _decimal(rows, delimiter)
    header = not asked.noheader and _has_header(rows, decimal, names)
    return Dialect(delimiter, decimal, header)


def csv_reader(text: str, delimiter: str, strict: bool = False) -> Any:
    """Returns a reader of the rows of a text.

    Args:
      text: the text of a table.
      delimiter: character between cells.
      strict: True to raise csv.Error on quotes in the wrong place.
    """
    # Cells in quotes may hold line breaks: csv wants them untranslated. Spaces before a
    # quote are no part of the cell.
    return csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        skipinitialspace=delimiter != " ",
        strict=strict,
    )


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """Returns the stripped cells of the first rows, without blank lines."""
    reader = csv_reader(text, delimiter)
    rows: list[list[str]] = []
    # What is no table is reported by whoever reads all of it.
    with contextlib.suppress(csv.Error):
        for cells in itertools.islice((row for row in reader if row), ROWS):
            rows.append([cell.strip() for cell in cells])
    # The last one may have been cut off.
    return rows[:-1] if len(text) >= CHARACTERS else rows


def _fit(text: str, delimiter: str) -> tuple[float, float, int]:
    """Returns how well a delimiter fits: rows of one length, numbers, many columns."""
    rows = _rows(text, delimiter)
    if not rows or len(rows[0]) < 2:
        return 0.0, 0.0, 0
    alike = sum(len(row) == len(rows[0]) for row in rows)
    cells = [cell for row in rows for cell in row]
    numbers = sum(_is_number(cell, delimiter) for cell in cells)
    return alike / len(rows), numbers / len(cells), len(rows[0])


def _is_number(cell: str, delimiter: str) -> bool:
    is_plain = number(cell) is not None
    return is_plain or (delimiter != "," and bool(DECIMAL_COMMA.fullmatch(cell)))


def _decimal(rows: Rows, delimiter: str) -> str:
    """Returns "," if cells have commas where others would have points, else "."."""
    # Between commas, "0,5" is in quotes and may as well be a list or thousands.
    if delimiter == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    points = sum(bool(DECIMAL_POINT.fullmatch(cell)) for cell in cells)
    return "," if commas > points else "."


def _has_header(rows: Rows, decimal: str, names: Sequence[str]) -> bool:
    """Returns whether the first row names the columns.

    It does if it has a number where all below it are texts. It does not if it has one
    in each column of numbers, and, where there are no such columns, if each of its
    cells occurs again below it.
    """
    if not rows:
        return True
    first, *body = rows
    if names and set(names) <= set(first):
        return True
    columns = [
        [row[place] for row in body if len(row) > place] for place in range(len(first))
    ]
    if any(
        number(cell, decimal) is not None and _are_texts(column, decimal)
        for cell, column in zip(first, columns)
    ):
        return True
    numeric = [
        cell
        for cell, column in zip(first, columns)
        if _mostly_numbers(column or [cell], decimal)
    ]
    if numeric:
        return any(number(cell, decimal) is None for cell in numeric)
    return not body or any(cell not in column for cell, column in zip(first, columns))


def _are_texts(column: Sequence[str], decimal: str) -> bool:
    """Returns whether no cell is a number, nor stands for a missing one."""
    return bool(column) and all(
        cell and number(cell, decimal) is None for cell in column
    )


def _mostly_numbers(column: Sequence[str], decimal: str) -> bool:
    numbers = sum(number(cell, decimal) is not None for cell in column)
    return numbers > len(column) / 2
