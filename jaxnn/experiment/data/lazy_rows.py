"""Rows of arrays that may be larger than memory: which ones is decided at once, they
are read when asked for."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

NUMBERS_AT_ONCE = 2**22
"""Read together where all rows are gone through."""

RowFunction = Callable[[np.ndarray], np.ndarray]
"""[n, ...] -> [n, ...]: of each row alone, so that it may be applied to any of the
rows."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Stands for an array [rows, ...] that is not held: rows of arrays, of mapped files
    say.

    `rows[index]` reads and gives a new array; an index is a slice or an array of
    integers, of any shape, with NumPy's meaning. `np.asarray(rows)` reads everything.
    `pick` and `map` read nothing.

    Attributes:
      arrays: [n, ...] each, one after the other; of one dtype, and of one shape but for
        n.
      places: [rows] int, in all the arrays.
      read: (rows of the arrays [m, ...], their places [m]) -> the rows that are handed
        out [m, ...].
    """

    arrays: Sequence[np.ndarray]
    places: np.ndarray
    read: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda values, places: values

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """As if it were an array."""
        return (len(self.places), *self._none.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """As if it were an array."""
        return self._none.dtype

    @property
    def ndim(self) -> int:
        """As if it were an array."""
        return self._none.ndim

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        places = self.places[index]
        flat = places.reshape(-1)
        return self.read(self._gather(flat), flat).reshape(
            *places.shape, *self.shape[1:]
        )

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        whole, first = np.empty(self.shape, self.dtype), 0
        for part in parts(self):
            whole[first : first + len(part)] = part
            first += len(part)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def pick(self, indices: np.ndarray) -> "Rows":
        """The rows of [m] int indices, in that order."""
        return dataclasses.replace(self, places=self.places[indices])

    def map(self, function: RowFunction) -> "Rows":
        """A function of each row, applied whenever it is read."""
        return dataclasses.replace(
            self, read=lambda values, places: function(self.read(values, places))
        )

    @functools.cached_property
    def _none(self) -> np.ndarray:
        """No rows at all, as they are handed out."""
        return self.read(
            np.empty((0, *self.arrays[0].shape[1:]), self.arrays[0].dtype),
            self.places[:0],
        )

    def _gather(self, places: np.ndarray) -> np.ndarray:
        """[m] -> [m, ...]: rows of the arrays, read in the order of the files, whatever
        that of the places."""
        starts = np.cumsum([0, *map(len, self.arrays)])
        values = np.empty(
            (len(places), *self.arrays[0].shape[1:]), self.arrays[0].dtype
        )
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], starts)
        for array, start, first, last in zip(self.arrays, starts, bounds, bounds[1:]):
            mine = order[first:last]
            values[mine] = array[places[mine] - start]
        return values


def concatenate(
    arrays: Sequence[np.ndarray],
    read: Callable[[np.ndarray, np.ndarray], np.ndarray] = Rows.read,
) -> Rows:
    """All rows of arrays, one after the other; `read` as in `Rows`."""
    return Rows(tuple(arrays), np.arange(sum(map(len, arrays))), read)


def pick(array: np.ndarray | Rows, indices: np.ndarray) -> np.ndarray | Rows:
    """Rows of an array, copied, or of rows that are not held, unread."""
    return array.pick(indices) if isinstance(array, Rows) else array[indices]


def apply(function: RowFunction, array: np.ndarray | Rows) -> np.ndarray | Rows:
    """A function of each row, at once or, of rows that are not held, when they are
    read."""
    return array.map(function) if isinstance(array, Rows) else function(array)


def parts(array: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """All rows in order, some at a time; at least one part."""
    at_once = max(NUMBERS_AT_ONCE // math.prod(array.shape[1:]), 1)
    return (
        array[first : first + at_once]
        for first in range(0, max(len(array), 1), at_once)
    )
