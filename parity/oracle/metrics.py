"""Metrics per example, by task: outputs [batch, ...] and targets -> [batch].

The caller averages over the batch. Formulas are those of jaxnn/metrics.py.
"""

import math
from collections.abc import Callable

import numpy as np

from jaxnn.experiment.catalogue import BINARY, LANGUAGE, MULTICLASS, REGRESSION
from parity.oracle import losses
from parity.oracle.tensor import lift

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]


def absolute_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """|y - t|, averaged over outputs: [batch, outputs], [batch, outputs] -> [batch]."""
    return np.abs(outputs - targets).mean(axis=-1)


def binary_accuracy(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 where the sign of the logit is right: [batch, 1], [batch, 1] -> [batch]."""
    return ((outputs >= 0) == (targets > 0.5)).mean(axis=-1)


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 where the largest logit is right: [batch, classes], [batch] -> [batch]."""
    return (outputs.argmax(axis=-1) == targets).astype(np.float64)


def bits_per_character(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropy in bits: [batch, steps, vocabulary], [batch, steps] -> [batch]."""
    # The loss is in nats.
    return losses.cross_entropy(lift(outputs), targets).value / math.log(2)


# Task -> (column of metrics.csv, function). To add a task: one function and one row.
METRICS: dict[str, tuple[str, Metric]] = {
    REGRESSION: ("mae", absolute_error),
    BINARY: ("accuracy", binary_accuracy),
    MULTICLASS: ("accuracy", accuracy),
    LANGUAGE: ("bits_per_character", bits_per_character),
}
