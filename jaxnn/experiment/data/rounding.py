"""Tells which columns lose distinct values when they are rounded to float32."""

from collections.abc import Iterator

import numpy as np

from jaxnn.experiment.catalogue import REGRESSION
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment

# Share of distinct fractions that rounding may merge: of many numbers with 17 digits
# some always become one. Whole numbers count, and none of them may.
MERGED_FRACTIONS = 0.1


def notes(experiment: Experiment, before: Dataset, after: Dataset) -> Iterator[str]:
    """Yields a line on each column of a table whose values rounding merges.

    Args:
      experiment: its `preprocess`.
      before: data set whose inputs are not scaled and not rounded yet.
      after: the same, scaled and in float32.
    """
    exact = before.train_inputs
    rounded = after.train_inputs
    # Memory-mapped rows are not read for this; what was float32 has nothing to lose.
    if (
        isinstance(exact, np.ndarray)
        and isinstance(rounded, np.ndarray)
        and exact.ndim == 2
        and exact.dtype != np.float32
    ):
        hint = "--preprocess=standardize scales before it rounds"
        if experiment.preprocess != "none":
            hint = "subtract an offset, or drop the column if it holds names"
        for place, name in enumerate(before.feature_names):
            lost = merged(exact[:, place], rounded[:, place])
            if lost:
                yield f"note: column {name!r}: {lost}; {hint}"


def target_notes(name: str, values: np.ndarray, task: str) -> Iterator[str]:
    """Yields a line if rounding merges values of a regression.

    Args:
      name: column or array that is predicted.
      values: [samples] or [samples, outputs] as read.
      task: task of the data set.
    """
    if task == REGRESSION and values.ndim == 1:
        lost = merged(values, values.astype(np.float32))
        if lost:
            yield f"note: {name}: {lost}; subtract an offset, or predict differences"


def merged(exact: np.ndarray, rounded: np.ndarray) -> str:
    """Returns what rounding merges in a column, with an example; "" if nothing.

    Args:
      exact: [rows] numbers.
      rounded: [rows] float32, a monotone function of them.
    """
    # One and zero, as most columns of texts, survive any scaling.
    if exact.min() == 0 and exact.max() == 1 and np.isin(exact, (0, 1)).all():
        return ""
    # Sorting both keeps them in pairs, because one rises with the other.
    values = np.sort(exact)
    new = np.append(True, np.diff(values) != 0)
    values = values[new]
    alike = np.flatnonzero(np.diff(np.sort(rounded)[new]) == 0)
    num_left = len(values) - len(alike)
    is_whole = bool((values == np.floor(values)).all())
    if len(alike) <= (0 if is_whole else MERGED_FRACTIONS * len(values)):
        return ""
    one, other = values[alike[0] : alike[0] + 2].tolist()
    return (
        f"{len(values)} distinct values become {num_left} in float32, e.g. "
        f"{_exactly(one)} and {_exactly(other)}"
    )


def _exactly(number: float) -> str:
    """Returns a number in full, without an exponent if it is whole."""
    return str(int(number)) if number == int(number) else repr(number)
