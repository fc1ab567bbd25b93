"""The cells of a column: numbers if all of them are plain ones, else distinct texts."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

LARGEST = float(np.finfo(np.float32).max)

# Whole numbers from here on may share a float64 with another.
FIRST_INEXACT = 2.0**53

PADDED = re.compile(r"0[0-9]+")
"""Digits with a leading zero, as in postcodes: no number, which would drop it."""


class Numbers(NamedTuple):
    """A column of plain numbers, which float64 holds as exactly as it can.

    None is beyond float32's range, none has a leading zero, and no whole number is
    2^53 or more.

    Attributes:
      values: [rows] float64.
    """

    values: np.ndarray


class Texts(NamedTuple):
    """A column of which some cell is not a plain number.

    Attributes:
      names: the distinct texts, in the order of their first rows.
      codes: [rows] int32, index of each row's text.
    """

    names: list[str]
    codes: np.ndarray

    def first_row(self, place: int) -> int:
        """Returns the first row that holds a text."""
        return int((self.codes == place).argmax())

    def counts(self) -> np.ndarray:
        """Returns in how many rows each text stands."""
        return np.bincount(self.codes, minlength=len(self.names))


Cells = Numbers | Texts


def num_rows(cells: Cells) -> int:
    """Returns the number of rows of a column."""
    return len(cells.values if isinstance(cells, Numbers) else cells.codes)


def of(cells: Sequence[str], decimal: str = ".", as_text: bool = False) -> Cells:
    """Returns the cells of a column, which are stripped already.

    Args:
      cells: text of each row.
      decimal: mark before the decimals, "." or ",".
      as_text: True to keep numbers as the texts that they were.
    """
    values = None if as_text else _plain(cells, decimal)
    if values is not None:
        return Numbers(values)
    places: dict[str, int] = {}
    codes = encoded(cells, places)
    return Texts(list(places), codes)


def encoded(cells: Iterable[str], places: dict[str, int]) -> np.ndarray:
    """Returns the [rows] int32 codes of some texts.

    Args:
      cells: texts.
      places: text -> code of what came before; it is extended.
    """
    codes = [places.setdefault(cell, len(places)) for cell in cells]
    return np.array(codes, np.int32)


def number(cell: str, decimal: str = ".") -> float | None:
    """Returns the number in a cell, or None.

    Args:
      cell: stripped text.
      decimal: mark before the decimals, "." or ",".
    """
    if decimal == ",":
        # A point is a separator of thousands there, or a mistake.
        if "." in cell:
            return None
        cell = cell.replace(",", ".", 1)
    # Python reads 1_000 as a number; no spreadsheet does.
    if "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def fits(value: float | None) -> bool:
    """Returns whether it is a number that float32 can represent."""
    return value is not None and math.isfinite(value) and abs(value) <= LARGEST


def are_exact(values: np.ndarray) -> bool:
    """Returns whether no whole number is so large that float64 may have rounded it."""
    # A number from 2^53 on has no decimals in float64.
    return bool((np.abs(values) < FIRST_INEXACT).all())


def _plain(cells: Sequence[str], decimal: str) -> np.ndarray | None:
    """Returns [rows] float64 if all cells are plain numbers, else None."""
    # Most columns hold numbers: one `try` around all cells instead of one around each.
    try:
        if decimal == ",":
            values = [number(cell, decimal) for cell in cells]
            array = np.array([math.nan if value is None else value for value in values])
        else:
            array = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    # NaN fails the comparison too. A large number such as 1e30 goes the exact way of
    # texts as well.
    if not are_exact(array):
        return None
    odd = any("_" in cell or PADDED.fullmatch(cell) for cell in cells)
    return None if odd else array
