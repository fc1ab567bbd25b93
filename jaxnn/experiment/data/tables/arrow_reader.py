"""Reads large CSV files with pyarrow, block by block.

Cells arrive as texts and are judged by the rules of cells.py; whatever pyarrow or this
file finds odd is left to those who read cell by cell.
"""

import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from jaxnn.experiment.data.tables.cells import (
    FIRST_INEXACT,
    Cells,
    Numbers,
    Texts,
    encoded,
)
from jaxnn.experiment.data.tables.dialect import Dialect

# Small blocks keep the memory of the texts small.
BLOCK_BYTES = 2**18

# Made when it is imported, so that a type checker does not know its functions.
compute: Any = pyarrow.compute

Blocks = Iterator[dict[str, pa.Array]]


class Growing:
    """A column that grows block by block.

    It doubles its room; what is not used of it yet costs no memory. A list of blocks to
    concatenate would cost the column twice.
    """

    def __init__(self, dtype: type):
        self._room = np.empty(0, dtype)
        self._count = 0

    def append(self, values: np.ndarray) -> None:
        """Adds values at the end."""
        end = self._count + len(values)
        if end > len(self._room):
            room = np.empty(2 * end, self._room.dtype)
            room[: self._count] = self.values()
            self._room = room
        self._room[self._count : end] = values
        self._count = end

    def values(self) -> np.ndarray:
        """Returns the column so far."""
        return self._room[: self._count]


def read(
    path: pathlib.Path,
    first: Sequence[str],
    names: Sequence[str],
    dialect: Dialect,
    texts: Collection[str],
) -> dict[str, Cells] | None:
    """Returns name -> cells, or None if the file has to be read cell by cell.

    Args:
      path: the file, not packed.
      first: cells of its first row.
      names: names of its columns.
      dialect: how it is written.
      texts: columns whose numbers are kept as texts.
    """
    try:
        wanted = [name for name in names if name not in texts]
        numbers = _numbers(_blocks(path, first, names, dialect, texts), wanted, dialect)
        # A second time for columns that turned out to hold texts.
        others = [name for name in names if name not in numbers]
        blocks = _blocks(path, first, names, dialect, set(numbers))
        found = _texts(blocks, others)
    except (pa.ArrowException, OSError):
        return None
    columns = numbers | found
    return {name: columns[name] for name in names} if len(columns) else None


def _blocks(
    path: pathlib.Path,
    first: Sequence[str],
    names: Sequence[str],
    dialect: Dialect,
    without: Collection[str],
) -> Blocks:
    """Yields texts by column, some columns left out."""
    # By place: how pyarrow reads a header is not how csv does.
    keys = [f"f{n}" for n in range(len(first))]
    wanted = {key: name for key, name in zip(keys, names) if name not in without}
    if not wanted:
        return
    reader = pyarrow.csv.open_csv(
        path,
        pyarrow.csv.ReadOptions(
            block_size=BLOCK_BYTES,
            autogenerate_column_names=True,
            skip_rows_after_names=int(dialect.header),
        ),
        pyarrow.csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            column_types={key: pa.string() for key in wanted},
            include_columns=list(wanted),
            null_values=[],
            strings_can_be_null=False,
        ),
    )
    with reader:
        for batch in reader:
            yield dict(zip(wanted.values(), batch.columns))


def _numbers(
    blocks: Blocks, names: Sequence[str], dialect: Dialect
) -> dict[str, Cells]:
    """Returns the columns that hold plain numbers in all blocks."""
    held = {name: Growing(np.float64) for name in names}
    for block in blocks:
        for name, column in block.items():
            if name in held:
                values = _plain(column, dialect.decimal)
                if values is None:
                    del held[name]
                else:
                    held[name].append(values)
    return {name: Numbers(column.values()) for name, column in held.items()}


def _plain(column: pa.Array, decimal: str) -> np.ndarray | None:
    """Returns float64 if all cells are plain numbers, as `Numbers` has them."""
    if decimal == ",":
        if compute.any(compute.match_substring(column, ".")).as_py():
            return None
        column = compute.replace_substring(column, ",", ".", max_replacements=1)
    try:
        values = compute.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        column = compute.utf8_trim_whitespace(column)
        try:
            values = compute.cast(column, pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            return None
    # NaN fails the comparison too.
    if not (np.abs(values) < FIRST_INEXACT).all():
        return None
    return None if _has_padded(column, values) else values


def _has_padded(column: pa.Array, values: np.ndarray) -> bool:
    """Returns whether some cell consists of digits with a leading zero."""
    # Few cells of a column of fractions hold a whole number, and need to be looked at.
    whole = values == np.floor(values)
    if not whole.any():
        return False
    some = column.filter(pa.array(whole))
    return bool(compute.any(compute.match_substring_regex(some, "^0[0-9]+$")).as_py())


def _texts(blocks: Blocks, names: Sequence[str]) -> dict[str, Cells]:
    """Returns columns as their distinct texts."""
    places: dict[str, dict[str, int]] = {name: {} for name in names}
    held = {name: Growing(np.int32) for name in names}
    for block in blocks:
        for name, column in block.items():
            distinct = compute.dictionary_encode(column)
            cells = [cell.strip() for cell in distinct.dictionary.to_pylist()]
            # A quote behind spaces opens a cell, which pyarrow does not know.
            if any(cell.startswith('"') for cell in cells):
                raise pa.ArrowInvalid("a cell in quotes behind spaces")
            codes = encoded(cells, places[name])
            held[name].append(codes[distinct.indices.to_numpy()])
    return {name: Texts(list(places[name]), held[name].values()) for name in names}
