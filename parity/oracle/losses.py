"""Losses per example: outputs [batch, ...] and targets -> [batch], with the formulas of
jaxnn/losses.py."""

import functools
from collections.abc import Callable

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.oracle.activations import relu
from parity.oracle.operations import exp as exponential
from parity.oracle.operations import (
    log1p,
    log_sum_exp,
    mean,
    reshape,
    softplus,
    total,
    where,
)
from parity.oracle.tensor import Tensor

Loss = Callable[[Tensor, np.ndarray], Tensor]
LEAST = float(np.finfo(np.float64).min)


def mse(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """(y - t)^2: [batch, ...], [batch, ...] -> [batch]."""
    return _mean_per_example((outputs - _fitting("mse", targets, outputs)) ** 2.0)


def binary_cross_entropy(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """t log(1 + exp(-z)) + (1 - t) log(1 + exp(z)): [batch, ...] logits z, [batch, ...]
    labels t of 0 and 1."""
    targets = _fitting("binary_cross_entropy", targets, outputs)
    return _mean_per_example(
        targets * softplus(-outputs) + (1 - targets) * softplus(outputs)
    )


def cross_entropy(
    outputs: Tensor, targets: np.ndarray, label_smoothing: float = 0.0
) -> Tensor:
    """sum_k q_k (log(sum_j exp(z_j)) - z_k), q = (1 - e) t + e / classes.

    Args:
      outputs: [batch, ..., classes] logits z.
      targets: [batch, ...] integer class, or [batch, ..., classes] probabilities t.
      label_smoothing: e.
    """
    if targets.ndim == outputs.ndim:
        shares = _fitting("cross_entropy", targets, outputs)
        return _mean_per_example(_expected_surprise(outputs, shares, label_smoothing))
    labels = _one_hot("cross_entropy", targets, outputs)
    if label_smoothing:
        return _mean_per_example(_expected_surprise(outputs, labels, label_smoothing))
    return _mean_per_example(_surprise(outputs, labels))


def hinge(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """max(0, 1 - (2t - 1) z): [batch, ...] scores z, [batch, ...] labels t of 0 and 1."""
    targets = _fitting("hinge", targets, outputs)
    return _mean_per_example(relu(1 - (2 * targets - 1) * outputs))


def multiclass_hinge(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """sum_{j != t} max(0, 1 - z_t + z_j) / classes: [batch, ..., classes] scores z,
    [batch, ...] integer class t."""
    labels = _one_hot("multiclass_hinge", targets, outputs)
    gaps = outputs - total(labels * outputs, axis=-1, keepdims=True)
    return _mean_per_example(
        total(relu(1 + gaps) * (1 - labels), axis=-1) / float(outputs.shape[-1])
    )


def perceptron(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """(step(z) - t) z, step(0) = 1 and a constant; of classes max_j z_j - z_t, the
    first of equal scores.

    Args:
      outputs: [batch, ...] scores z, or [batch, ..., classes].
      targets: [batch, ...] labels t of 0 and 1, or integer classes.
    """
    if targets.ndim < outputs.ndim:
        errors = _largest(outputs) - _one_hot("perceptron", targets, outputs)
        return _mean_per_example(total(errors * outputs, axis=-1))
    targets = _fitting("perceptron", targets, outputs)
    return _mean_per_example(
        (np.where(outputs.value >= 0, 1.0, 0.0) - targets) * outputs
    )


def build(name: str, label_smoothing: float = 0.0) -> Loss:
    """The loss of a name.

    Args:
      name: a key of `LOSSES`.
      label_smoothing: of cross_entropy.
    """
    smoothed = functools.partial(cross_entropy, label_smoothing=label_smoothing)
    return smoothed if name == "cross_entropy" else LOSSES[name]


def _surprise(logits: Tensor, labels: np.ndarray) -> Tensor:
    """log(1 + sum_{j != t} exp(z_j - z_t)), in which nothing cancels: [..., classes],
    one-hot labels -> [...]."""
    gaps = logits - total(labels * logits, axis=-1, keepdims=True)
    return softplus(log_sum_exp(where(labels > 0, LEAST, gaps)))


def _expected_surprise(
    logits: Tensor, labels: np.ndarray, label_smoothing: float
) -> Tensor:
    """The cross entropy of probabilities as a sum of positive terms: with a the largest
    logit's class, log(1 + sum_{j != a} exp(z_j - z_a)) sum(q) + sum_{k != a} q_k (z_a -
    z_k)."""
    labels = (1 - label_smoothing) * labels + label_smoothing / logits.shape[-1]
    top = _largest(logits)
    gaps = total(top * logits, axis=-1, keepdims=True) - logits
    others = total((1 - top) * exponential(-gaps), axis=-1)
    return log1p(others) * labels.sum(axis=-1) + total(
        (1 - top) * labels * gaps, axis=-1
    )


def _mean_per_example(losses: Tensor) -> Tensor:
    return mean(reshape(losses, (losses.shape[0], -1)), axis=1)


def _largest(scores: Tensor) -> np.ndarray:
    """1 at the largest of the last axis, the first of equals, 0 elsewhere."""
    return _rows_of_identity(scores.value.argmax(axis=-1), scores.shape[-1])


def _one_hot(name: str, targets: np.ndarray, scores: Tensor) -> np.ndarray:
    if targets.shape != scores.shape[:-1] or targets.dtype.kind not in "iu":
        raise UserError(
            f"--loss: {name} takes an integer class for each row of outputs "
            f"{scores.shape}, got {targets.dtype} targets {targets.shape}; choose a "
            "loss that fits the data"
        )
    return _rows_of_identity(targets, scores.shape[-1])


def _rows_of_identity(places: np.ndarray, size: int) -> np.ndarray:
    return (places[..., None] == np.arange(size)).astype(np.float64)


def _fitting(name: str, targets: np.ndarray, outputs: Tensor) -> np.ndarray:
    """The targets in float64, of the shape of the outputs."""
    if outputs.shape != targets.shape:  # they would broadcast
        raise UserError(
            f"--loss: {name} takes targets of the shape of the outputs "
            f"{outputs.shape}, got {targets.shape}; choose a loss that fits the data"
        )
    return np.asarray(targets, np.float64)


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "multiclass_hinge": multiclass_hinge,
    "perceptron": perceptron,
}
