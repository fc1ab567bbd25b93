"""Batch and layer normalization with torch's semantics, in at least float32.

Twin of jaxnn/models/normalization.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor as Array
from torch import distributed, nn

from torch_ref.dropout import MaskSource
from torch_ref.precision import at_least_float32

EPSILON = 1e-5
"""Added to every variance, as in torch."""

MOMENTUM = 0.1
"""Share of a batch in the running statistics, as in torch; flax's 0.9 is the rest."""


# torch's own kernel sums images of this layout in one float32 after the other, which is
# 100 times less exact in float32, and it knows no padding rows.
class BatchNorm(nn.BatchNorm1d):
    """y = weight (x - mean) / sqrt(var + eps) + bias, each channel over its batch.

    Ioffe & Szegedy 2015. Training uses the mean and the biased variance of the samples
    of the global batch. It moves the running statistics a tenth of the way towards
    them, with the unbiased variance; evaluation uses the running statistics.

    Under `--nosync_batch_norm` each device uses the mean and variance of its own rows.
    The running statistics are then the mean over the devices of what each would have,
    so that they stay equal.

    Args:
      num_features: channels.
    """

    running_mean: Array
    running_var: Array

    def __init__(self, num_features: int):
        super().__init__(num_features, EPSILON, MOMENTUM)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, ..., channels] -> [batch, ..., channels].

        Args:
          x: activations of this device's rows.
          masks: training context, or None to use the running statistics.
        """
        # Widened once: two copies would round the gradients of each to x's dtype.
        wide = at_least_float32(x)
        mean = self.running_mean
        var = self.running_var
        if masks is None:
            return normalize(wide, mean, var, self.weight, self.bias).to(x.dtype)

        batch_mean, batch_var, count = batch_statistics(wide, masks)
        _move(mean, batch_mean, count)
        _move(var, unbiased(batch_var, count), count)
        _mean_over_devices(mean, masks)
        _mean_over_devices(var, masks)
        y = normalize(wide, batch_mean, batch_var, self.weight, self.bias)
        return y.to(x.dtype)

    def _apply(self, fn: Callable, recurse: bool = True) -> "BatchNorm":
        """Applies `half()` and the like, but not to the running statistics."""
        before = (self.running_mean, self.running_var)
        super()._apply(fn, recurse)
        if self.running_mean.dtype in (torch.float16, torch.bfloat16):
            device = self.running_mean.device
            self.running_mean, self.running_var = (stat.to(device) for stat in before)
        return self


# torch's own kernel sums the gradients of scale and bias row after row, in half
# precision even in half precision: on a CPU they are 30 times less exact there over 512
# rows, and four times in float32.
class LayerNorm(nn.LayerNorm):
    """y = weight (x - mean) / sqrt(var + eps) + bias over the last axis.

    Ba et al. 2016.

    Args:
      num_features: length of the last axis.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features, EPSILON)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[..., features] -> [..., features]; `masks` is not used."""
        del masks
        wide, weight, bias = (
            at_least_float32(value) for value in (x, self.weight, self.bias)
        )
        y = nn.functional.layer_norm(wide, self.normalized_shape, eps=self.eps)
        return (y * weight + bias).to(x.dtype)


class Unnormalized(nn.Module):
    """y = x."""

    def __init__(self, num_features: int):
        super().__init__()
        del num_features

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[...] -> [...]; `masks` is not used."""
        del masks
        return x


def norm_layer(kind: str, num_features: int) -> nn.Module:
    """Returns a layer of `--normalization`, called with (x, masks).

    Args:
      kind: "none", "batch" or "layer".
      num_features: length of the last axis.
    """
    return NORMALIZATIONS[kind](num_features)


def batch_statistics(x: Array, masks: MaskSource) -> tuple[Array, Array, Array]:
    """Mean, variance E[(x - mean)^2] and number of values of each channel.

    Args:
      x: [rows, ..., channels] activations of this device's rows.
      masks: training context. Padding rows do not count, nor do the rows of other
        devices under `--nosync_batch_norm`.

    Returns:
      ([channels], [channels], ()), in at least float32; 0, 1 and 0 if no row counts.
    """
    x = at_least_float32(x)
    weights = x.new_ones(len(x)) if masks.weights is None else masks.weights.to(x.dtype)
    count = _sum_over(weights.sum(), masks) * x[0, ..., 0].numel()
    weights = weights.reshape(-1, *[1] * (x.ndim - 1))

    def average(values: Array) -> Array:
        total = _sum_over((values * weights).flatten(0, -2).sum(0), masks)
        return total / count.clamp(min=1)

    mean = average(x)
    # Of the distances, not E[x^2] - mean^2, which cancels if the mean is large.
    var = average(torch.square(x - mean))
    # A variance of 0 would multiply padding by 316, beyond float16, and infinity times
    # its weight 0 is no number.
    var = var + (count == 0).to(x.dtype)
    return mean, var, count


def unbiased(var: Array, count: Array) -> Array:
    """Variance of `count` values, divided by count - 1 instead of count."""
    # A single value keeps its variance, 0; torch refuses such a batch.
    return var * count / (count - 1).clamp(min=1)


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
        value.to(wide.dtype) for value in (mean, var, scale, bias)
    )
    return ((wide - mean) * (torch.rsqrt(var + EPSILON) * scale) + bias).to(x.dtype)


@torch.no_grad()
def _move(running: Array, batch: Array, count: Array) -> None:
    moved = (1 - MOMENTUM) * running + MOMENTUM * batch.to(running.dtype)
    # A microbatch of padding alone changes nothing.
    running.copy_(torch.where(count > 0, moved, running))


@torch.no_grad()
def _mean_over_devices(running: Array, masks: MaskSource) -> None:
    if masks.sync_batch_norm or not _is_distributed():
        return
    distributed.all_reduce(running)
    running /= distributed.get_world_size()


class _SumOverDevices(torch.autograd.Function):
    """A sum over the ranks, differentiable as jax.lax.psum is."""

    @staticmethod
    def forward(ctx, value: Array) -> Array:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *grads: Array) -> Array:
        # Every rank's loss depends on the sum, so each value gets the gradients of all
        # of them.
        return _SumOverDevices.forward(ctx, grads[0])


def _sum_over(x: Array, masks: MaskSource) -> Array:
    is_synced = masks.sync_batch_norm and _is_distributed()
    return _SumOverDevices.apply(x) if is_synced else x


def _is_distributed() -> bool:
    """Returns True if there are several ranks."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": Unnormalized,
    "batch": BatchNorm,
    "layer": LayerNorm,
}
