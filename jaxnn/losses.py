"""Losses per example: [batch, ...] outputs and targets -> [batch]. Twin of torch_ref/losses.py.

The caller averages. Outputs may be low precision; each loss is computed in float32, or in
float64 when the outputs are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnn.precision import at_least_float32

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def mse(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """(y - t)^2, averaged over the outputs of an example; no factor 1/2.

    Args:
      outputs: [batch, outputs].
      targets: [batch, outputs].
    """
    outputs = at_least_float32(outputs)
    return jnp.mean(jnp.square(outputs - targets.astype(outputs.dtype)), axis=-1)


def binary_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """-[t log s(z) + (1 - t) log s(-z)], s the logistic function: no cancellation at any logit.

    Args:
      outputs: [batch, outputs] logits z.
      targets: [batch, outputs] labels t, 0 or 1.
    """
    logits = at_least_float32(outputs)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype)), axis=-1)


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """log(sum_k exp(z_k)) - z_t: the negative log softmax of the right class.

    Args:
      outputs: [batch, classes] logits z.
      targets: [batch] integer class t.
    """
    return optax.softmax_cross_entropy_with_integer_labels(at_least_float32(outputs), targets)


LOSSES: dict[str, Loss] = {"mse": mse, "binary_cross_entropy": binary_cross_entropy, "cross_entropy": cross_entropy}
