"""Dense layers, embeddings and normalization, with jaxnn's parameter names and layouts."""

import numpy as np

from parity.oracle.initializers import Draw, Initializer, constant
from parity.oracle.operations import mean, reshape
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor

EPSILON = 1e-5
MOMENTUM = 0.1


def dense(scope: Scope, name: str, size: int, x: Tensor, start: Initializer) -> Tensor:
    """y = x W + b: [..., in] -> [..., size]."""
    width = x.shape[-1]
    kernel = scope.param(f"{name}/kernel", (width, size), start.kernel)
    bias = scope.param(f"{name}/bias", (size,), start.bias(width))
    return scope.keep(
        name, reshape(reshape(x, (-1, width)) @ kernel + bias, (*x.shape[:-1], size))
    )


def embed(
    scope: Scope,
    name: str,
    tokens: np.ndarray,
    num_tokens: int,
    width: int,
    start: Draw,
) -> Tensor:
    """The table's row of each token: [...] integers -> [..., width]."""
    return scope.param(f"{name}/embedding", (num_tokens, width), start)[tokens]


def layer_norm(scope: Scope, name: str, x: Tensor) -> Tensor:
    """y = scale (x - mean) / sqrt(var + eps) + bias over the last axis (Ba et al.
    2016): [..., features]."""
    scale, bias = _scale_and_bias(scope, name, x.shape[-1])
    centred = x - mean(x, axis=-1, keepdims=True)
    variance = mean(centred**2.0, axis=-1, keepdims=True)
    return scope.keep(name, centred * (variance + EPSILON) ** -0.5 * scale + bias)


def batch_norm(scope: Scope, name: str, x: Tensor) -> Tensor:
    """y = scale (x - mean) / sqrt(var + eps) + bias, each channel over its batch (Ioffe
    & Szegedy 2015).

    In training by the batch's mean and biased variance, and the running statistics move
    a tenth of the way to them, to the unbiased variance; else by the running
    statistics: [batch, ..., channels].
    """
    channels, axes = x.shape[-1], tuple(range(x.ndim - 1))
    scale, bias = _scale_and_bias(scope, name, channels)
    running_mean = scope.statistic(f"{name}/mean", (channels,), 0.0)
    running_var = scope.statistic(f"{name}/var", (channels,), 1.0)
    if scope.masks is None:
        return scope.keep(
            name, (x - running_mean) * ((running_var + EPSILON) ** -0.5 * scale) + bias
        )
    average = mean(x, axis=axes)
    variance = mean((x - average) ** 2.0, axis=axes)
    count = x.value.size // channels
    unbiased = variance.value * count / max(count - 1, 1)
    scope.updated_stats[f"{name}/mean"] = (
        1 - MOMENTUM
    ) * running_mean + MOMENTUM * average.value
    scope.updated_stats[f"{name}/var"] = (
        1 - MOMENTUM
    ) * running_var + MOMENTUM * unbiased
    return scope.keep(
        name, (x - average) * ((variance + EPSILON) ** -0.5 * scale) + bias
    )


def normalize(kind: str, scope: Scope, name: str, x: Tensor) -> Tensor:
    """A layer of `--normalization`: "none", "batch" or "layer"."""
    return NORMALIZATIONS[kind](scope, name, x)


def _scale_and_bias(scope: Scope, name: str, size: int) -> tuple[Tensor, Tensor]:
    return (
        scope.param(f"{name}/scale", (size,), constant(1.0)),
        scope.param(f"{name}/bias", (size,), constant(0.0)),
    )


NORMALIZATIONS = {
    "none": lambda scope, name, x: x,
    "batch": batch_norm,
    "layer": layer_norm,
}
