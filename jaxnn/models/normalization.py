"""Batch and layer normalization with torch's semantics; statistics in at least float32.
Twin of torch.nn's layers."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxnn.dropout import MaskSource
from jaxnn.precision import at_least_float32

EPSILON = 1e-5
SUMMED = "summed"
MOMENTUM = 0.1


class BatchNorm(nn.Module):
    """y = scale (x - mean) / sqrt(var + eps) + bias, each channel over its batch (Ioffe
    & Szegedy 2015).

    Training uses the mean and the (biased) variance of the global batch's real rows and
    moves the running statistics `batch_stats` by a tenth towards them, the variance's
    unbiased form; evaluation uses those. Under `--nosync_batch_norm` each device uses
    the mean and variance of its own rows, and the running statistics are the mean over
    the devices of what each would have, so that they stay equal. A batch of one value a
    channel leaves its variance, 0, uncorrected; torch refuses it.
    """

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
        """[batch, ..., channels] -> the same; without `masks` by the running
        statistics."""
        shape = x.shape[-1:]
        scale, bias = _scale_and_bias(self, shape)
        running_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, shape, jnp.float32
        )
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if masks is None:
            return _normalize(x, running_mean.value, running_var.value, scale, bias)
        mean, var, count = batch_statistics(x, masks)
        if self.is_mutable_collection("batch_stats"):
            running_mean.value = _mean_over_devices(
                _move(running_mean.value, mean, count), masks
            )
            running_var.value = _mean_over_devices(
                _move(running_var.value, unbiased(var, count), count), masks
            )
        return _normalize(x, mean, var, scale, bias)


class LayerNorm(nn.Module):
    """y = scale (x - mean) / sqrt(var + eps) + bias over the last axis (Ba et al.
    2016)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., features] -> the same."""
        scale, bias = _scale_and_bias(self, x.shape[-1:])
        wide = at_least_float32(x)
        mean = wide.mean(axis=-1, keepdims=True)
        var = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
        return _normalize(x, mean, var, scale, bias)


def normalize(
    kind: str, name: str, x: jax.Array, masks: MaskSource | None
) -> jax.Array:
    """Applies a layer of `--normalization` inside another module's compact `__call__`.

    Args:
      kind: "none", "batch" or "layer".
      name: of the layer's parameters.
      x: [batch, ..., features].
      masks: None outside training.
    """
    return NORMALIZATIONS[kind](name, x, masks)


def batch_statistics(
    x: jax.Array, masks: MaskSource
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, variance E[(x - mean)^2] and number of values of each channel, over the
    rows of all devices.

    Args:
      x: [rows, ..., channels].
      masks: rows of weight 0 do not count; under `--nosync_batch_norm` those of other
        devices do not either.

    Returns:
      ([channels], [channels], ()), in at least float32; 0, 1 and 0 where no row counts.
    """
    return _statistics(
        x, masks.weights, masks.axis_name if masks.sync_batch_norm else None
    )


def unbiased(var: jax.Array, count: jax.Array) -> jax.Array:
    """The variance of `count` values, divided by count - 1 instead of count."""
    return var * count / jnp.maximum(count - 1, 1)


# Backpropagation keeps the layer's input in its own format and makes the float32 copies
# again: a ResNet-50 in FP16 keeps 13 GB at batch 256 instead of 30. What the devices
# have summed is not summed twice.
@partial(
    jax.checkpoint,
    static_argnums=2,
    policy=jax.checkpoint_policies.save_only_these_names(SUMMED),
)
def _statistics(x: jax.Array, weights: jax.Array | None, axis_name: str | None):
    x = at_least_float32(x)
    axes = tuple(range(x.ndim - 1))
    weights = (
        jnp.ones(x.shape[:1], x.dtype) if weights is None else weights.astype(x.dtype)
    )
    count = _sum_over(weights.sum(), axis_name) * math.prod(x.shape[1:-1])
    weights = weights.reshape(-1, *[1] * (x.ndim - 1))

    def average(values: jax.Array) -> jax.Array:
        return _sum_over(jnp.sum(values * weights, axis=axes), axis_name) / jnp.maximum(
            count, 1
        )

    mean = average(x)
    # A variance of 0 would multiply padding by 316, beyond float16, and infinity times
    # its weight 0 is no number.
    var = average(jnp.square(x - _on_last_axis(mean, x.ndim))) + (count == 0).astype(
        x.dtype
    )
    return mean, var, count


@jax.checkpoint
def _normalize(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    wide = at_least_float32(x)
    mean, var, scale, bias = (
        _on_last_axis(v.astype(wide.dtype), x.ndim) for v in (mean, var, scale, bias)
    )
    return ((wide - mean) * (lax.rsqrt(var + EPSILON) * scale) + bias).astype(x.dtype)


def _on_last_axis(values: jax.Array, ndim: int) -> jax.Array:
    return values.reshape(*[1] * (ndim - values.ndim), *values.shape)


def _scale_and_bias(
    module: nn.Module, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    scale = module.param("scale", nn.initializers.ones, shape, jnp.float32)
    return scale, module.param("bias", nn.initializers.zeros, shape, jnp.float32)


def _move(running: jax.Array, batch: jax.Array, count: jax.Array) -> jax.Array:
    """A tenth of the way; a part of a batch that is all padding (count 0) changes
    nothing."""
    moved = (1 - MOMENTUM) * running + MOMENTUM * batch.astype(running.dtype)
    return lax.stop_gradient(jnp.where(count > 0, moved, running))


def _mean_over_devices(running: jax.Array, masks: MaskSource) -> jax.Array:
    return (
        running
        if masks.sync_batch_norm or not masks.axis_name
        else lax.pmean(running, masks.axis_name)
    )


def _sum_over(x: jax.Array, axis_name: str | None) -> jax.Array:
    summed = lax.psum(x, axis_name) if axis_name and lax.axis_size(axis_name) > 1 else x
    return checkpoint_name(summed, SUMMED)


NORMALIZATIONS = {
    "none": lambda name, x, masks: x,
    "batch": lambda name, x, masks: BatchNorm(name=name)(x, masks),
    "layer": lambda name, x, masks: LayerNorm(name=name)(x),
}
