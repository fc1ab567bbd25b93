"""Metrics per example, averaged by the caller: [batch, ...] -> [batch] float32. Twin of
torch_ref/metrics.py."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Metric = Callable[[jax.Array, jax.Array], jax.Array]


def absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """|y - t|, averaged over the outputs of an example: [batch, outputs] x 2 -> [batch]."""
    return jnp.mean(
        jnp.abs(outputs.astype(jnp.float32) - targets.astype(jnp.float32)), axis=-1
    )


def binary_accuracy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """1 where the logit's sign is the label's: [batch, 1] logits, [batch, 1] labels 0
    or 1 -> [batch]."""
    return jnp.mean(((outputs >= 0) == (targets > 0.5)).astype(jnp.float32), axis=-1)


def accuracy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's: [batch, classes] logits, [batch]
    classes -> [batch]."""
    return (jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets).astype(
        jnp.float32
    )


def bits_per_character(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """(log(sum_k exp(z_k)) - z_t) / ln 2, averaged over the positions of an example
    (Graves 2013, 1308.0850).

    Args:
      outputs: [batch, steps, vocabulary] logits z.
      targets: [batch, steps] integer character t.
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
