"""The steps of a recording, and the entries of one tensor through them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import select

Arrays = Mapping[str, np.ndarray]

NONE: Arrays = {}

ENTRIES = 1024
"""Entries of a tensor that are measured, evenly spaced over it."""


class Step(NamedTuple):
    """One update of a training program, as recorded in float32.

    Attributes:
      count: updates applied before, as recorded.
      params: parameters before, by name.
      grads: gradients by name, unscaled and before clipping.
      updated: parameters after.
      moments: moments before, "first/NAME" and "second/NAME"; one that is missing here
        but not in `updated_moments` was zero.
      updated_moments: moments after; empty if they were not read.
    """

    count: int
    params: Arrays
    grads: Arrays
    updated: Arrays
    moments: Arrays = NONE
    updated_moments: Arrays = NONE


def recorded_step(count: int, tensors: Mapping[str, np.ndarray]) -> Step:
    """Returns the update of a recorded step.

    Args:
      count: updates applied before.
      tensors: the step's, as the trace names them.
    """
    kinds = ("params", "grads", "updated", "moments", "updated_moments")
    return Step(count, *(select(tensors, kind) for kind in kinds))


class History(NamedTuple):
    """One tensor through T steps, N of its entries, in float64.

    Attributes:
      counts: T recorded update counts.
      w: [T, N] parameters before each step.
      g: [T, N] gradients.
      new_w: [T, N] parameters after.
      m: [T, N] first moment before, or None.
      new_m: [T, N] first moment after, or None.
      v: [T, N] second moment before, or None.
      new_v: [T, N] second moment after, or None.
    """

    counts: tuple[int, ...]
    w: np.ndarray
    g: np.ndarray
    new_w: np.ndarray
    m: np.ndarray | None = None
    new_m: np.ndarray | None = None
    v: np.ndarray | None = None
    new_v: np.ndarray | None = None

    def at(self, entries: np.ndarray | slice) -> "History":
        """Returns the history of some entries.

        Args:
          entries: indices, a slice or a mask over N.
        """
        parts = (None if part is None else part[:, entries] for part in self[1:])
        return History(self.counts, *parts)  # pyright: ignore

    def delayed(self) -> "History":
        """Returns steps 1 to T - 1 with the gradient of the step before each."""
        parts = (None if part is None else part[1:] for part in self[1:])
        later = History(self.counts[1:], *parts)  # pyright: ignore
        return later._replace(g=self.g[:-1])


def of_tensor(steps: Sequence[Step], name: str) -> History:
    """Returns all entries of one tensor through the steps."""

    def stack(kind: str) -> np.ndarray:
        return np.stack([_flat(getattr(step, kind)[name]) for step in steps])

    first = _moment(steps, f"first/{name}")
    second = _moment(steps, f"second/{name}")
    counts = tuple(step.count for step in steps)
    return History(
        counts, stack("params"), stack("grads"), stack("updated"), *first, *second
    )


def sampled(history: History) -> History:
    """Returns at most `ENTRIES` entries, evenly spaced."""
    size = history.w.shape[1]
    if size <= ENTRIES:
        return history
    return history.at(np.linspace(0, size - 1, ENTRIES).astype(int))


def still(history: History) -> np.ndarray:
    """Returns a mask over N: a gradient is there, but the entry never moves."""
    moves = (history.new_w != history.w).any(axis=0)
    return ~moves & (history.g != 0).any(axis=0)


def _moment(
    steps: Sequence[Step], key: str
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    if not all(key in step.updated_moments for step in steps):
        return None, None
    after = [_flat(step.updated_moments[key]) for step in steps]
    before = [
        _flat(step.moments[key]) if key in step.moments else np.zeros_like(array)
        for step, array in zip(steps, after)
    ]
    return np.stack(before), np.stack(after)


def _flat(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64).reshape(-1)
