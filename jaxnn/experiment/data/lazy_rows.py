"""Lazy arrays: rows of files that may be larger than memory, read when indexed.

The functions `pick`, `apply` and `chunks` take NumPy arrays and `Rows` alike.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Numbers in a chunk when all rows are read: 16 MiB of float32.
NUMBERS_AT_ONCE = 2**22

# [n, ...] -> [n, ...], row by row: it may be applied to any subset of the rows.
RowFunction = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """A lazy [rows, ...] array over rows of other arrays, such as memory-mapped files.

    `rows[index]` reads the rows and returns a new array; the index is a slice or an
    array of integers of any shape, with NumPy's meaning. `np.asarray(rows)` reads all
    rows. `pick` and `map` read nothing.

    Attributes:
      arrays: [n, ...] arrays, thought of as concatenated; they have one dtype and, but
        for n, one shape.
      places: [rows] int, indices into the concatenation.
      read: transformation of rows that have been read: (rows of the arrays [m, ...],
        their places [m]) -> [m, ...].
    """

    arrays: Sequence[np.ndarray]
    places: np.ndarray
    read: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda values, places: values

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return (len(self.places), *self._empty.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the array."""
        return self._empty.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions of the array."""
        return self._empty.ndim

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        places = self.places[index]
        flat = places.reshape(-1)
        rows = self.read(self._gather(flat), flat)
        return rows.reshape(*places.shape, *self.shape[1:])

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        # In chunks, so that `read` needs no second array of full size.
        whole = np.empty(self.shape, self.dtype)
        first = 0
        for chunk in chunks(self):
            whole[first : first + len(chunk)] = chunk
            first += len(chunk)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def pick(self, indices: np.ndarray) -> "Rows":
        """Returns the rows of [m] int indices, in that order."""
        return dataclasses.replace(self, places=self.places[indices])

    def map(self, function: RowFunction) -> "Rows":
        """Returns the rows with a function applied to them whenever they are read."""
        return dataclasses.replace(
            self, read=lambda values, places: function(self.read(values, places))
        )

    @functools.cached_property
    def _empty(self) -> np.ndarray:
        """[0, ...] rows: shape and dtype after `read`, without reading a file."""
        first = self.arrays[0]
        return self.read(np.empty((0, *first.shape[1:]), first.dtype), self.places[:0])

    def _gather(self, places: np.ndarray) -> np.ndarray:
        """[m] int -> [m, ...]: rows of the arrays."""
        starts = np.cumsum([0, *map(len, self.arrays)])
        first = self.arrays[0]
        values = np.empty((len(places), *first.shape[1:]), first.dtype)

        # Sorted, so that each file is read once and from front to back, however the
        # rows are shuffled.
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], starts)
        for array, start, low, high in zip(self.arrays, starts, bounds, bounds[1:]):
            mine = order[low:high]
            values[mine] = array[places[mine] - start]
        return values


def concatenate(
    arrays: Sequence[np.ndarray],
    read: Callable[[np.ndarray, np.ndarray], np.ndarray] = Rows.read,
) -> Rows:
    """Returns the rows of all arrays, one after the other; `read` is as in `Rows`."""
    return Rows(tuple(arrays), np.arange(sum(map(len, arrays))), read)


def pick(array: np.ndarray | Rows, indices: np.ndarray) -> np.ndarray | Rows:
    """Returns rows: `Rows` unread; of an array a copy, of consecutive ones a view."""
    if isinstance(array, Rows):
        return array.pick(indices)
    first = int(indices[0]) if len(indices) else 0
    # A copy would hold a data set twice, if it brings its own test split.
    rows = np.arange(first, first + len(indices))
    if first >= 0 and np.array_equal(indices, rows):
        return array[first : first + len(indices)]
    return array[indices]


def apply(function: RowFunction, array: np.ndarray | Rows) -> np.ndarray | Rows:
    """Applies a function to an array at once, to `Rows` whenever they are read."""
    return array.map(function) if isinstance(array, Rows) else function(array)


def chunks(array: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """Yields all rows in order, `NUMBERS_AT_ONCE` numbers at a time.

    An array without rows has one empty chunk.
    """
    at_once = max(NUMBERS_AT_ONCE // math.prod(array.shape[1:]), 1)
    return (
        array[first : first + at_once]
        for first in range(0, max(len(array), 1), at_once)
    )
