"""Metrics per example, averaged by the caller: [batch, ...] -> [batch] float32.

Twin of torch_ref/metrics.py.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jax import Array

Metric = Callable[[Array, Array], Array]


def absolute_error(outputs: Array, targets: Array) -> Array:
    """|y - t|, averaged over the outputs of an example.

    Args:
      outputs: [batch, outputs] values y.
      targets: [batch, outputs] values t.
    """
    difference = outputs.astype(jnp.float32) - targets.astype(jnp.float32)
    return jnp.mean(jnp.abs(difference), axis=-1)


def binary_accuracy(outputs: Array, targets: Array) -> Array:
    """1 where the sign of the logit is that of the label, else 0.

    Args:
      outputs: [batch, 1] logits; a logit of 0 counts as positive.
      targets: [batch, 1] labels, 0 or 1.
    """
    is_right = (outputs >= 0) == (targets > 0.5)
    return jnp.mean(is_right.astype(jnp.float32), axis=-1)


def accuracy(outputs: Array, targets: Array) -> Array:
    """1 where the largest logit is that of the label, else 0.

    Args:
      outputs: [batch, classes] logits; the first of equal logits counts.
      targets: [batch] integer classes, from 0.
    """
    # argmax is int64 under x64; strict dtype promotion compares equal dtypes only.
    is_right = jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets
    return is_right.astype(jnp.float32)


def bits_per_character(outputs: Array, targets: Array) -> Array:
    """(log(sum_k exp(z_k)) - z_t) / ln 2, averaged over the positions of an example.

    Graves 2013, arXiv 1308.0850.

    Args:
      outputs: [batch, steps, vocabulary] logits z.
      targets: [batch, steps] integer characters t.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(
        outputs.astype(jnp.float32), targets
    )
    return jnp.mean(losses, axis=-1) / math.log(2)


METRICS: dict[str, tuple[str, Metric]] = {
    "regression": ("mae", absolute_error),
    "binary": ("accuracy", binary_accuracy),
    "multiclass": ("accuracy", accuracy),
    "language": ("bits_per_character", bits_per_character),
}
"""Task -> (name in metrics.csv, metric)."""
