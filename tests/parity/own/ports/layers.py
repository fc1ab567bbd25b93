"""Layers in JAX that round where torch does: statistics in at least float32."""

import jax
import jax.numpy as jnp
from flax import linen as nn

IGNORED = -100  # label that torch's cross entropy skips


def wide(x: jax.Array) -> jax.Array:
    """Returns `x` in float32, or in its own dtype if that is wider."""
    # Not jnp.promote_types: under strict promotion it refuses to.
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def softmax(scores: jax.Array) -> jax.Array:
    """Returns probabilities along the last axis, rounded to the scores' dtype once."""
    return jax.nn.softmax(wide(scores)).astype(scores.dtype)


def erf_gelu(x: jax.Array) -> jax.Array:
    """Returns x times the normal distribution function of x, rounded once."""
    return jax.nn.gelu(wide(x), approximate=False).astype(x.dtype)


def silu(x: jax.Array) -> jax.Array:
    """Returns x times its sigmoid, rounded once."""
    return jax.nn.silu(wide(x)).astype(x.dtype)


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array
) -> jax.Array:
    """Mixes values by the softmax of scaled dot products.

    Args:
      query: [batch, queries, heads, head].
      key: [batch, keys, heads, head].
      value: as `key`.
      allowed: which keys a query sees, [batch or 1, 1, queries or 1, keys].

    Returns:
      [batch, queries, heads * head].
    """
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", softmax(scores), value)
    return mixed.reshape(*mixed.shape[:2], -1)


def causal(length: int) -> jax.Array:
    """Returns which earlier positions a position sees, [1, 1, length, length]."""
    return jnp.tril(jnp.ones((1, 1, length, length), bool))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean over labels that are not ignored, in the logits' dtype.

    Log probabilities are rounded to that dtype, and so is the mean.

    Args:
      logits: [..., classes].
      labels: [...].
    """
    logs = jax.nn.log_softmax(wide(logits)).astype(logits.dtype)
    counted = labels != IGNORED
    chosen = jnp.where(counted, labels, 0)[..., None]
    picked = jnp.take_along_axis(logs, chosen, axis=-1)[..., 0]
    total = wide(jnp.where(counted, picked, 0)).sum()
    return -(total / counted.sum().astype(total.dtype)).astype(logits.dtype)


class LayerNorm(nn.Module):
    """Normalizes the last axis; rounds once, after scale and bias.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        centred = wide(x) - wide(x).mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + self.epsilon)
        scale, bias = (
            wide(p).reshape((1,) * (x.ndim - 1) + (-1,)) for p in (scale, bias)
        )
        return (normal * scale + bias).astype(x.dtype)
