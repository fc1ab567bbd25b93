"""Batch and layer normalization with torch's semantics, in at least float32.

Twin of torch_ref/models/normalization.py.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from jaxnn.dropout import MaskSource
from jaxnn.precision import at_least_float32

EPSILON = 1e-5
"""Added to every variance, as in torch."""

MOMENTUM = 0.1
"""Share of a batch in the running statistics, as in torch; flax's 0.9 is the rest."""

SUMMED = "summed"
"""Checkpoint name of what the devices have summed."""


class BatchNorm(nn.Module):
    """y = scale (x - mean) / sqrt(var + eps) + bias, each channel over its batch.

    Ioffe & Szegedy 2015. Training uses the mean and the biased variance of the samples
    of the global batch. It moves the running statistics a tenth of the way towards
    them, with the unbiased variance; evaluation uses the running statistics.

    Under `--nosync_batch_norm` each device uses the mean and variance of its own rows.
    The running statistics are then the mean over the devices of what each would have,
    so that they stay equal.
    """

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, ..., channels] -> [batch, ..., channels].

        Args:
          x: activations of this device's rows.
          masks: training context, or None to use the running statistics.
        """
        shape = x.shape[-1:]
        scale, bias = _scale_and_bias(self, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if masks is None:
            return normalize(x, mean.value, var.value, scale, bias)

        batch_mean, batch_var, count = batch_statistics(x, masks)
        if self.is_mutable_collection("batch_stats"):
            moved_mean = _move(mean.value, batch_mean, count)
            moved_var = _move(var.value, unbiased(batch_var, count), count)
            mean.value = _mean_over_devices(moved_mean, masks)
            var.value = _mean_over_devices(moved_var, masks)
        return normalize(x, batch_mean, batch_var, scale, bias)


class LayerNorm(nn.Module):
    """y = scale (x - mean) / sqrt(var + eps) + bias over the last axis.

    Ba et al. 2016.
    """

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[..., features] -> [..., features]; `masks` is not used."""
        del masks
        scale, bias = _scale_and_bias(self, x.shape[-1:])
        wide = at_least_float32(x)
        mean = wide.mean(axis=-1, keepdims=True)
        var = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
        return normalize(x, mean, var, scale, bias)


def norm_layer(kind: str, name: str) -> Callable[[Array, MaskSource | None], Array]:
    """Returns a layer of `--normalization`, called with (x, masks).

    Must be called inside another module's compact `__call__`.

    Args:
      kind: "none", "batch" or "layer".
      name: name of the layer in the calling module.
    """
    return NORMALIZATIONS[kind](name)


def batch_statistics(x: Array, masks: MaskSource) -> tuple[Array, Array, Array]:
    """Mean, variance E[(x - mean)^2] and number of values of each channel.

    Args:
      x: [rows, ..., channels] activations of this device's rows.
      masks: training context. Padding rows do not count, nor do the rows of other
        devices under `--nosync_batch_norm`.

    Returns:
      ([channels], [channels], ()), in at least float32; 0, 1 and 0 if no row counts.
    """
    axis_name = masks.axis_name if masks.sync_batch_norm else None
    return _statistics(x, masks.weights, axis_name)


def unbiased(var: Array, count: Array) -> Array:
    """Variance of `count` values, divided by count - 1 instead of count."""
    # A single value keeps its variance, 0; torch refuses such a batch.
    return var * count / jnp.maximum(count - 1, 1)


# Backpropagation keeps x in its own dtype and makes the float32 copies again, here and
# in `_statistics`: a ResNet-50 in FP16 keeps 13 GB at batch 256 instead of 30.
@jax.checkpoint
def normalize(x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> Array:
    """(x - mean) / sqrt(var + eps) scale + bias, in at least float32.

    Args:
      x: [..., features].
      mean: mean of the values that are normalized together, broadcast from the last
        axis.
      var: their biased variance, likewise.
      scale: [features].
      bias: [features].

    Returns:
      [..., features], rounded to the dtype of x.
    """
    wide = at_least_float32(x)
    mean, var, scale, bias = (
        _on_last_axis(value.astype(wide.dtype), x.ndim)
        for value in (mean, var, scale, bias)
    )
    return ((wide - mean) * (lax.rsqrt(var + EPSILON) * scale) + bias).astype(x.dtype)


# The policy keeps the sums over the devices: making them again would communicate twice.
@partial(
    jax.checkpoint,
    static_argnums=2,
    policy=jax.checkpoint_policies.save_only_these_names(SUMMED),
)
def _statistics(x: Array, weights: Array | None, axis_name: str | None):
    x = at_least_float32(x)
    axes = tuple(range(x.ndim - 1))
    weights = jnp.ones(len(x), x.dtype) if weights is None else weights.astype(x.dtype)
    count = _sum_over(weights.sum(), axis_name) * math.prod(x.shape[1:-1])
    weights = weights.reshape(-1, *[1] * (x.ndim - 1))

    def average(values: Array) -> Array:
        total = _sum_over(jnp.sum(values * weights, axis=axes), axis_name)
        return total / jnp.maximum(count, 1)

    mean = average(x)
    # Of the distances, not E[x^2] - mean^2, which cancels if the mean is large.
    var = average(jnp.square(x - _on_last_axis(mean, x.ndim)))
    # A variance of 0 would multiply padding by 316, beyond float16, and infinity times
    # its weight 0 is no number.
    var = var + (count == 0).astype(x.dtype)
    return mean, var, count


def _on_last_axis(values: Array, ndim: int) -> Array:
    # A caller may have made implicit rank promotion an error.
    return values.reshape(*[1] * (ndim - values.ndim), *values.shape)


def _scale_and_bias(module: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array]:
    scale = module.param("scale", nn.initializers.ones, shape, jnp.float32)
    bias = module.param("bias", nn.initializers.zeros, shape, jnp.float32)
    return scale, bias


def _move(running: Array, batch: Array, count: Array) -> Array:
    moved = (1 - MOMENTUM) * running + MOMENTUM * batch.astype(running.dtype)
    # A microbatch of padding alone changes nothing.
    return lax.stop_gradient(jnp.where(count > 0, moved, running))


def _mean_over_devices(running: Array, masks: MaskSource) -> Array:
    if masks.sync_batch_norm or not masks.axis_name:
        return running
    return lax.pmean(running, masks.axis_name)


def _sum_over(x: Array, axis_name: str | None) -> Array:
    summed = lax.psum(x, axis_name) if axis_name and lax.axis_size(axis_name) > 1 else x
    return checkpoint_name(summed, SUMMED)


def _unnormalized(x: Array, masks: MaskSource | None = None) -> Array:
    """y = x."""
    del masks
    return x


NORMALIZATIONS = {
    "none": lambda name: _unnormalized,
    "batch": lambda name: BatchNorm(name=name),
    "layer": lambda name: LayerNorm(name=name),
}
