"""Multi-head self-attention (Vaswani et al. 2017)."""

import math

import jax
import jax.numpy as jnp

from jaxnn.precision import at_least_float32


def self_attention(qkv: jax.Array, num_heads: int, causal: bool) -> jax.Array:
    """softmax(q k^T / sqrt(d) + mask) v for each head of d features, with the softmax
    in float32 or float64.

    Args:
      qkv: [batch, steps, 3 * width], queries, keys and values side by side, each head
        after head.
      num_heads: heads; divides width.
      causal: a step sees itself and earlier ones; else all.

    Returns:
      [batch, steps, width], head after head.
    """
    batch, steps, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    features = width // num_heads
    q, k, v = jnp.moveaxis(
        qkv.reshape(batch, steps, 3, num_heads, features), (2, 3), (0, 2)
    )
    scores = at_least_float32(q * score_scale(features)) @ at_least_float32(k).swapaxes(
        -1, -2
    )
    if causal:
        scores = jnp.where(visible(steps), scores, jnp.finfo(scores.dtype).min)
    mixed = jax.nn.softmax(scores, axis=-1).astype(v.dtype) @ v
    return mixed.swapaxes(1, 2).reshape(batch, steps, width)


def score_scale(features: int) -> float:
    """What the product of a query and a key of so many features is multiplied by."""
    return 1 / math.sqrt(features)


def visible(steps: int) -> jax.Array:
    """[1, 1, steps, steps] bool: whether a query (third axis) sees a key (fourth),
    itself and earlier ones."""
    return jnp.tril(jnp.ones((1, 1, steps, steps), bool))
