"""Batch and layer normalization, statistics in at least float32. Twin of
jaxnn/models/normalization.py."""

from collections.abc import Callable

import torch
from torch import distributed, nn

from torch_ref.dropout import MaskSource
from torch_ref.precision import at_least_float32

EPSILON = 1e-5
MOMENTUM = 0.1


class BatchNorm(nn.BatchNorm1d):
    """y = weight (x - mean) / sqrt(var + eps) + bias, each channel over its batch
    (Ioffe & Szegedy 2015).

    Training uses the mean and the (biased) variance of the global batch's real rows and
    moves the running statistics by a tenth towards them, the variance's unbiased form;
    evaluation uses those. Under `--nosync_batch_norm` each rank uses the mean and
    variance of its own rows, and the running statistics are the mean over the ranks of
    what each would have, so that they stay equal. A batch of one value a channel leaves
    its variance, 0, uncorrected; torch refuses it.

    torch's own kernel would sum images of this layout in one float32 after the other:
    in float32 it is 100 times less exact, and it knows no padded rows.

    Args:
      num_features: channels.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features, EPSILON, MOMENTUM)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[batch, ..., channels] -> the same; without `masks` by the running
        statistics."""
        wide = at_least_float32(x)
        if masks is None:
            return self._normalize(wide, self.running_mean, self.running_var).to(
                x.dtype
            )
        mean, var, count = batch_statistics(wide, masks)
        _move(self.running_mean, mean, count)
        _move(self.running_var, unbiased(var, count), count)
        if not masks.sync_batch_norm:
            _average_over_ranks(self.running_mean)
            _average_over_ranks(self.running_var)
        return self._normalize(wide, mean, var).to(x.dtype)

    def _normalize(
        self, x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor
    ) -> torch.Tensor:
        mean, var, weight, bias = (
            value.to(x.dtype) for value in (mean, var, self.weight, self.bias)
        )
        return (x - mean) * (torch.rsqrt(var + EPSILON) * weight) + bias

    def _apply(self, fn: Callable, recurse: bool = True) -> "BatchNorm":
        """Running statistics stay in at least float32 where `half()` would round them."""
        before = self.running_mean, self.running_var
        super()._apply(fn, recurse)
        if self.running_mean.dtype in (torch.float16, torch.bfloat16):
            self.running_mean, self.running_var = (
                stat.to(self.running_mean.device) for stat in before
            )
        return self


class LayerNorm(nn.LayerNorm):
    """y = weight (x - mean) / sqrt(var + eps) + bias over the last axis (Ba et al.
    2016), in at least float32.

    torch's own kernel sums the gradients of scale and bias row after row, in half
    precision even in half precision: on a CPU they are 30 times less exact there over
    512 rows, and four times in float32.

    Args:
      num_features: length of the last axis.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features, EPSILON)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[..., features] -> the same; `masks` is not used."""
        del masks
        wide, weight, bias = (
            at_least_float32(value) for value in (x, self.weight, self.bias)
        )
        return (
            nn.functional.layer_norm(wide, self.normalized_shape, eps=self.eps) * weight
            + bias
        ).to(x.dtype)


class Unnormalized(nn.Module):
    """y = x."""

    def __init__(self, num_features: int):
        super().__init__()
        del num_features

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[...] -> the same; `masks` is not used."""
        del masks
        return x


def normalize(kind: str, num_features: int) -> nn.Module:
    """A layer of `--normalization`, called with (x, masks).

    Args:
      kind: "none", "batch" or "layer".
      num_features: length of the last axis.
    """
    return NORMALIZATIONS[kind](num_features)


def batch_statistics(
    x: torch.Tensor, masks: MaskSource
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, variance E[(x - mean)^2] and number of values of each channel, over the
    rows of all ranks.

    Args:
      x: [rows, ..., channels].
      masks: rows of weight 0 do not count; under `--nosync_batch_norm` those of other
        ranks do not either.

    Returns:
      ([channels], [channels], ()), in at least float32; 0, 1 and 0 where no row counts.
    """
    x, total = (
        at_least_float32(x),
        _sum_over if masks.sync_batch_norm else lambda value: value,
    )
    weights = x.new_ones(len(x)) if masks.weights is None else masks.weights.to(x.dtype)
    count = total(weights.sum()) * x[0, ..., 0].numel()
    weights = weights.reshape(-1, *[1] * (x.ndim - 1))

    def average(values: torch.Tensor) -> torch.Tensor:
        return total((values * weights).flatten(0, -2).sum(0)) / count.clamp(min=1)

    mean = average(x)
    # A variance of 0 would multiply padding by 316, beyond float16, and infinity times
    # its weight 0 is no number.
    var = average(torch.square(x - mean)) + (count == 0).to(x.dtype)
    return mean, var, count


def unbiased(var: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The variance of `count` values, divided by count - 1 instead of count."""
    return var * count / (count - 1).clamp(min=1)


@torch.no_grad()
def _move(running: torch.Tensor, batch: torch.Tensor, count: torch.Tensor) -> None:
    """A tenth of the way; a part of a batch that is all padding (count 0) changes
    nothing."""
    moved = (1 - MOMENTUM) * running + MOMENTUM * batch.to(running.dtype)
    running.copy_(torch.where(count > 0, moved, running))


@torch.no_grad()
def _average_over_ranks(running: torch.Tensor) -> None:
    if _is_one_of_many():
        distributed.all_reduce(running)
        running /= distributed.get_world_size()


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> torch.Tensor:
        # Every rank's loss depends on the sum, so each value gets the gradients of all
        # of them.
        return _SumOverRanks.forward(ctx, grads[0])


def _sum_over(value: torch.Tensor) -> torch.Tensor:
    return _SumOverRanks.apply(value) if _is_one_of_many() else value


def _is_one_of_many() -> bool:
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
