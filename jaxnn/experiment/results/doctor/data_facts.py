"""Facts of the training data: how its columns are scaled, and what a guess costs."""

from typing import NamedTuple

import numpy as np

from jaxnn.experiment.catalogue import BINARY, LANGUAGE, REGRESSION, TABLE
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.diagnosis import SMALLEST_NORMAL
from jaxnn.experiment.flags.config import Experiment

BLOCK = 2**18
"""Entries that are looked at in one go."""


class Column(NamedTuple):
    """A column of a table as the network gets it.

    Attributes:
      name: of the column.
      largest: largest absolute value.
      mean: over the rows.
      spread: standard deviation.
      tiny: share of the entries that are not 0 and below FP16's normal numbers.
    """

    name: str
    largest: float
    mean: float
    spread: float
    tiny: float


class DataFacts(NamedTuple):
    """Facts of the training split.

    Attributes:
      samples: number of rows.
      columns: of a table in memory; else empty.
      guess: training loss of the best constant output; None where it is not known.
    """

    samples: int
    columns: tuple[Column, ...]
    guess: float | None


def of(experiment: Experiment, data: Dataset) -> DataFacts:
    """Returns the facts of a data set."""
    return DataFacts(len(data.train_inputs), _columns(data), _guess(experiment, data))


def _columns(data: Dataset) -> tuple[Column, ...]:
    inputs = data.train_inputs
    if data.kind != TABLE or not isinstance(inputs, np.ndarray):
        return ()
    names = data.feature_names or [f"x{number}" for number in range(inputs.shape[1])]
    # A few columns at a time: in float64 a whole table takes twice its memory, thrice.
    width = max(1, BLOCK // len(inputs))
    starts = range(0, inputs.shape[1], width)
    facts = [row for start in starts for row in _rows(inputs[:, start : start + width])]
    return tuple(Column(str(name), *row) for name, row in zip(names, facts))


def _rows(columns: np.ndarray) -> list[tuple[float, ...]]:
    """Returns largest, mean, spread and tiny of each column."""
    values = np.ascontiguousarray(columns.T, np.float64)
    sizes = np.abs(values)
    tiny = ((sizes > 0) & (sizes < SMALLEST_NORMAL)).mean(axis=1)
    facts = np.stack([sizes.max(axis=1), values.mean(axis=1), values.std(axis=1), tiny])
    return [tuple(map(float, row)) for row in facts.T]


def _guess(experiment: Experiment, data: Dataset) -> float | None:
    """Returns the loss of the best constant output on the training split."""
    targets = data.train_targets
    if experiment.loss == "mse" and data.task == REGRESSION:
        return float(np.mean(np.var(np.asarray(targets, np.float64), axis=0)))
    if experiment.loss == "binary_cross_entropy" and data.task == BINARY:
        return _entropy(np.bincount((targets[:, 0] > 0.5).astype(int)))
    if experiment.loss != "cross_entropy" or experiment.label_smoothing:
        return None
    # Of a text, a guess of each character by how often it occurs.
    classes = targets.reshape(-1) if data.task == LANGUAGE else targets
    return _entropy(np.bincount(classes.astype(int)))


def _entropy(counts: np.ndarray) -> float:
    """Returns the entropy of a distribution in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares)))
