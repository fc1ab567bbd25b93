"""Losses per example: outputs [batch, ...] and targets -> [batch].

The caller averages over the batch; all other axes are averaged here. Formulas and
derivatives at kinks are those of jaxnn/losses.py.
"""

import functools
from collections.abc import Callable

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.oracle import operations
from parity.oracle.activations import relu
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
"""Stands for minus infinity in `_surprise`, which would be nan there for one class."""


def mse(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """(y - t)^2, without a factor 1/2.

    Args:
      outputs: [batch, ...] values y.
      targets: [batch, ...] values t.
    """
    targets = _same_shape("mse", targets, outputs)
    return _mean_per_example((outputs - targets) ** 2.0)


def binary_cross_entropy(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """t log(1 + exp(-z)) + (1 - t) log(1 + exp(z)).

    Args:
      outputs: [batch, ...] logits z.
      targets: [batch, ...] labels t, 0 or 1.
    """
    targets = _same_shape("binary_cross_entropy", targets, outputs)
    return _mean_per_example(
        targets * softplus(-outputs) + (1 - targets) * softplus(outputs)
    )


def cross_entropy(
    outputs: Tensor, targets: np.ndarray, label_smoothing: float = 0.0
) -> Tensor:
    """sum_k q_k (log(sum_j exp(z_j)) - z_k), q = (1 - e) t + e / classes.

    Args:
      outputs: [batch, ..., classes] logits z.
      targets: [batch, ...] integer classes, or [batch, ..., classes] probabilities t.
      label_smoothing: e, the share of a label that is spread over all classes.
    """
    if targets.ndim == outputs.ndim:
        shares = _same_shape("cross_entropy", targets, outputs)
        return _mean_per_example(_expected_surprise(outputs, shares, label_smoothing))

    labels = _one_hot("cross_entropy", targets, outputs)
    if label_smoothing:
        return _mean_per_example(_expected_surprise(outputs, labels, label_smoothing))
    return _mean_per_example(_surprise(outputs, labels))


def hinge(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """max(0, 1 - (2t - 1) z).

    Args:
      outputs: [batch, ...] scores z.
      targets: [batch, ...] labels t, 0 or 1.
    """
    targets = _same_shape("hinge", targets, outputs)
    return _mean_per_example(relu(1 - (2 * targets - 1) * outputs))


def multiclass_hinge(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """sum_{j != t} max(0, 1 - z_t + z_j) / classes.

    Args:
      outputs: [batch, ..., classes] scores z.
      targets: [batch, ...] integer classes t.
    """
    labels = _one_hot("multiclass_hinge", targets, outputs)
    gaps = outputs - total(labels * outputs, axis=-1, keepdims=True)
    margins = relu(1 + gaps) * (1 - labels)
    return _mean_per_example(total(margins, axis=-1) / float(outputs.shape[-1]))


def perceptron(outputs: Tensor, targets: np.ndarray) -> Tensor:
    """(step(z) - t) z, or max_j z_j - z_t for classes (Rosenblatt 1958).

    step(0) = 1, and the first of equal scores counts as the largest.

    Args:
      outputs: [batch, ...] scores z, or [batch, ..., classes].
      targets: [batch, ...] labels t, 0 or 1, or integer classes.
    """
    # `errors` is a NumPy array in both cases: the step is a constant to the derivative.
    if targets.ndim < outputs.ndim:
        errors = _largest(outputs) - _one_hot("perceptron", targets, outputs)
        return _mean_per_example(total(errors * outputs, axis=-1))

    targets = _same_shape("perceptron", targets, outputs)
    errors = np.where(outputs.value >= 0, 1.0, 0.0) - targets
    return _mean_per_example(errors * outputs)


def build(name: str, label_smoothing: float = 0.0) -> Loss:
    """Returns the loss called `name`.

    Args:
      name: key of `LOSSES`.
      label_smoothing: used by cross_entropy alone.
    """
    if name == "cross_entropy":
        return functools.partial(cross_entropy, label_smoothing=label_smoothing)
    return LOSSES[name]


def _surprise(logits: Tensor, labels: np.ndarray) -> Tensor:
    """log(1 + sum_{j != t} exp(z_j - z_t)): [..., classes], one-hot labels -> [...]."""
    # log(sum_j exp(z_j)) - z_t is equal, but cancels for a confident, right answer
    # (MISMATCHES L10).
    gaps = logits - total(labels * logits, axis=-1, keepdims=True)
    return softplus(log_sum_exp(where(labels > 0, LEAST, gaps)))


def _expected_surprise(
    logits: Tensor, labels: np.ndarray, label_smoothing: float
) -> Tensor:
    """Cross-entropy of logits against probabilities: [..., classes] x 2 -> [...].

    With a the class of the largest logit and q the smoothed labels:

      log(1 + sum_{j != a} exp(z_j - z_a)) sum(q) + sum_{k != a} q_k (z_a - z_k)
    """
    labels = (1 - label_smoothing) * labels + label_smoothing / logits.shape[-1]
    top = _largest(logits)
    gaps = total(top * logits, axis=-1, keepdims=True) - logits

    # A sum of positive terms, in which nothing cancels.
    others = total((1 - top) * operations.exp(-gaps), axis=-1)
    return log1p(others) * labels.sum(axis=-1) + total(
        (1 - top) * labels * gaps, axis=-1
    )


def _mean_per_example(losses: Tensor) -> Tensor:
    return mean(reshape(losses, (losses.shape[0], -1)), axis=1)


def _largest(scores: Tensor) -> np.ndarray:
    """1 at the largest score of the last axis, the first of equals, and 0 elsewhere."""
    return _rows_of_identity(scores.value.argmax(axis=-1), scores.shape[-1])


def _one_hot(name: str, targets: np.ndarray, scores: Tensor) -> np.ndarray:
    if targets.shape != scores.shape[:-1] or targets.dtype.kind not in "iu":
        raise UserError(
            f"--loss: {name} takes an integer class for each row of outputs "
            f"{scores.shape}, got {targets.dtype} targets {targets.shape}; choose a "
            "loss that fits the data"
        )
    return _rows_of_identity(targets, scores.shape[-1])


def _rows_of_identity(indices: np.ndarray, size: int) -> np.ndarray:
    return (indices[..., None] == np.arange(size)).astype(np.float64)


def _same_shape(name: str, targets: np.ndarray, outputs: Tensor) -> np.ndarray:
    """Returns the targets in float64; raises UserError unless they fit the outputs."""
    # Without this check [batch] targets would broadcast against [batch, 1] outputs.
    if outputs.shape != targets.shape:
        raise UserError(
            f"--loss: {name} takes targets of the shape of the outputs "
            f"{outputs.shape}, got {targets.shape}; choose a loss that fits the data"
        )
    return np.asarray(targets, np.float64)


# To add a loss: one function above and one row here. The tests require the same keys
# as jaxnn's.
LOSSES: dict[str, Loss] = {
    "mse": mse,
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "multiclass_hinge": multiclass_hinge,
    "perceptron": perceptron,
}
