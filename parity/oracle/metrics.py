"""Metrics per example by task, averaged by the caller: [batch, ...] -> [batch]. The
formulas of jaxnn/metrics.py."""

import math
from collections.abc import Callable

import numpy as np

from jaxnn.experiment.data.dataset import BINARY, LANGUAGE, MULTICLASS, REGRESSION
from parity.oracle import losses
from parity.oracle.tensor import lift

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]


def absolute_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """|y - t|, averaged over the outputs of an example: [batch, outputs] x 2 -> [batch]."""
    return np.abs(outputs - targets).mean(axis=-1)


def binary_accuracy(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 where the logit's sign is the label's: [batch, 1] logits, [batch, 1] labels 0
    or 1 -> [batch]."""
    return ((outputs >= 0) == (targets > 0.5)).mean(axis=-1)


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 where the largest logit is the label's: [batch, classes] logits, [batch]
    classes -> [batch]."""
    return (outputs.argmax(axis=-1) == targets).astype(np.float64)


def bits_per_character(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The cross entropy in bits, averaged over the positions of an example: [batch,
    steps, vocabulary] -> [batch]."""
    return losses.cross_entropy(lift(outputs), targets).value / math.log(2)


METRICS: dict[str, tuple[str, Metric]] = {
    REGRESSION: ("mae", absolute_error),
    BINARY: ("accuracy", binary_accuracy),
    MULTICLASS: ("accuracy", accuracy),
    LANGUAGE: ("bits_per_character", bits_per_character),
}
