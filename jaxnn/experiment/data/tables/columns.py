"""What columns hold: numbers, labels to the last digit, or texts, one-hot encoded."""

import math
import re
from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.data.tables import cells
from jaxnn.experiment.data.tables.cells import PADDED, Numbers, Texts
from jaxnn.experiment.data.tables.table_file import TableFile
from jaxnn.experiment.errors import UserError

# Distinct texts in a column; each becomes an input.
MOST_CATEGORIES = 1000
EMPTY = "is empty; fill it in or remove the row"
ALL_EMPTY = "is empty in all rows; fill it in, or remove the column"
WHOLE = re.compile(r"[+-]?[0-9]+")


def is_numeric(table: TableFile, column: str) -> bool:
    """Returns True if a column holds numbers, False if it holds text.

    Digits with a leading zero, as in postcodes, make a column text. "nan" and "inf"
    among texts are texts, such as the surname Nan.

    Raises:
      UserError: a cell is empty, or not finite or a text in a column of mostly numbers.
    """
    held = table.columns[column]
    if isinstance(held, Numbers):
        return True
    refuse_empty(table, column)
    values = _parsed(table, held)
    counts = held.counts()
    is_text = np.array([value is None for value in values])
    is_finite = np.array([_is_finite(value) for value in values])
    if counts[is_text].sum() > counts[is_finite].sum():
        return False

    odd = np.flatnonzero(~is_finite).tolist()
    if not odd:
        return not _are_padded(held)
    if is_text.any() and any(PADDED.fullmatch(name) for name in held.names):
        return False
    raise _odd_cell(table, column, held, values, odd)


def refuse_empty(table: TableFile, column: str) -> None:
    """Raises UserError on the first empty cell of a column."""
    held = table.columns[column]
    if isinstance(held, Texts) and "" in held.names:
        row = held.first_row(held.names.index(""))
        is_all = len(held.names) == 1 and table.num_rows > 1
        raise table.error(row, column, ALL_EMPTY if is_all else EMPTY)


def numbers(table: TableFile, column: str) -> np.ndarray:
    """Returns the numbers of a column, [rows] float64.

    Raises:
      UserError: a cell is not a number that float32 can represent.
    """
    held = table.columns[column]
    if isinstance(held, Numbers):
        return held.values
    values = _parsed(table, held)
    bad = [place for place, value in enumerate(values) if not cells.fits(value)]
    if bad:
        place = min(bad, key=held.first_row)
        cell = held.names[place]
        raise table.error(
            held.first_row(place),
            column,
            f"holds {cell!r}, not a finite number in float32's range"
            if cell
            else EMPTY,
        )
    return np.array(values, np.float64)[held.codes]


def labels(table: TableFile, column: str) -> np.ndarray:
    """Returns a column to predict: [rows] float64, int64 or text, no two merged.

    Raises:
      UserError: as `is_numeric`.
    """
    held = table.columns[column]
    if isinstance(held, Numbers):
        return held.values
    if not is_numeric(table, column):
        return np.array(held.names, str)[held.codes]
    try:
        whole = np.array([int(name) for name in held.names], np.int64)
    # Decimals, an exponent, or beyond int64.
    except (ValueError, OverflowError):
        return np.array(_parsed(table, held), np.float64)[held.codes]
    return whole[held.codes]


def merged(table: TableFile, column: str) -> tuple[str, str] | None:
    """Returns two whole numbers of a column that float64 makes one, or None."""
    held = table.columns[column]
    if isinstance(held, Numbers):
        return None
    seen: dict[float, str] = {}
    for name in held.names:
        if WHOLE.fullmatch(name):
            other = seen.setdefault(float(name), name)
            if int(other) != int(name):
                return other, name
    return None


def categories(
    table: TableFile, column: str, rows: Sequence[int] | np.ndarray
) -> tuple[str, ...]:
    """Returns the sorted distinct texts of a column in some rows.

    Raises:
      UserError: there are more than `MOST_CATEGORIES`.
    """
    held = texts(table, column)
    found = sorted([held.names[code] for code in np.unique(held.codes[rows])])
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
    held = texts(table, column)
    places = {text: place for place, text in enumerate(known)}
    codes = np.array([places.get(name, -1) for name in held.names])[held.codes]
    return (codes[:, None] == np.arange(len(known))).astype(np.float32)


def texts(table: TableFile, column: str) -> Texts:
    """Returns a column that holds texts."""
    held = table.columns[column]
    assert isinstance(held, Texts), f"column {column} was read as numbers"
    return held


def _parsed(table: TableFile, held: Texts) -> list[float | None]:
    return [cells.number(name, table.dialect.decimal) for name in held.names]


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _are_padded(held: Texts) -> bool:
    """Returns whether all are digits, and some have a leading zero."""
    return all(name.isdigit() for name in held.names) and any(
        PADDED.fullmatch(name) for name in held.names
    )


def _odd_cell(
    table: TableFile,
    column: str,
    held: Texts,
    values: Sequence[float | None],
    odd: Sequence[int],
) -> UserError:
    """Returns the error on a column of numbers in which a few cells are none."""
    # A few texts among numbers are typing errors, not categories.
    place = min(odd, key=held.first_row)
    cell = held.names[place]
    problem = f"is {cell}, not a finite number; correct it or remove the row"
    if values[place] is None:
        problem = f"holds {cell!r}, not a number as most of its rows do; correct it"
    return table.error(held.first_row(place), column, problem)
