"""Dense layers, embeddings and normalization; parameter names are jaxnn's."""

import numpy as np

from parity.oracle.initializers import Draw, Initializer, constant
from parity.oracle.operations import mean, reshape
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor

# torch's defaults. flax's are 1e-6 for layer normalization, and 0.99 for a momentum
# that multiplies the old value (MISMATCHES L1, L2).
EPSILON = 1e-5
MOMENTUM = 0.1


def dense(
    scope: Scope,
    name: str,
    size: int,
    x: Tensor,
    initializer: Initializer,
    use_bias: bool = True,
) -> Tensor:
    """y = x W + b, or x W without a bias: [..., in] -> [..., size]."""
    width = x.shape[-1]
    kernel = scope.param(f"{name}/kernel", (width, size), initializer.kernel)

    # Flattened to one matrix product: a batched one would make a kernel gradient per
    # leading index before summing them.
    rows = reshape(x, (-1, width))
    y = rows @ kernel
    if use_bias:
        y = y + scope.param(f"{name}/bias", (size,), initializer.bias(width))
    return scope.keep(name, reshape(y, (*x.shape[:-1], size)))


def embed(
    scope: Scope,
    name: str,
    tokens: np.ndarray,
    num_tokens: int,
    width: int,
    draw: Draw,
) -> Tensor:
    """Looks up the embedding of each token: [...] integers -> [..., width]."""
    table = scope.param(f"{name}/embedding", (num_tokens, width), draw)
    return table[tokens]


def layer_norm(scope: Scope, name: str, x: Tensor) -> Tensor:
    """y = scale (x - mean) / sqrt(var + eps) + bias over the last axis.

    Ba et al. 2016.

    Args:
      scope: parameters.
      name: name of the layer.
      x: [..., features].
    """
    scale, bias = _scale_and_bias(scope, name, x.shape[-1])
    centred = x - mean(x, axis=-1, keepdims=True)
    variance = mean(centred**2.0, axis=-1, keepdims=True)
    return scope.keep(name, centred * (variance + EPSILON) ** -0.5 * scale + bias)


def batch_norm(scope: Scope, name: str, x: Tensor) -> Tensor:
    """y = scale (x - mean) / sqrt(var + eps) + bias per channel.

    Ioffe & Szegedy 2015. Training uses the mean and biased variance of the batch and
    moves the running statistics a tenth of the way towards the mean and the unbiased
    variance. Evaluation uses the running statistics.

    Args:
      scope: parameters and running statistics; `masks` is None outside training.
      name: name of the layer.
      x: [batch, ..., channels].
    """
    channels = x.shape[-1]
    scale, bias = _scale_and_bias(scope, name, channels)
    running_mean = scope.statistic(f"{name}/mean", (channels,), 0.0)
    running_var = scope.statistic(f"{name}/var", (channels,), 1.0)

    if scope.masks is None:
        factor = (running_var + EPSILON) ** -0.5 * scale
        return scope.keep(name, (x - running_mean) * factor + bias)

    axes = tuple(range(x.ndim - 1))
    average = mean(x, axis=axes)
    variance = mean((x - average) ** 2.0, axis=axes)

    # Running statistics are plain arrays: no gradient flows through them. The variance
    # is corrected by n / (n - 1), as in torch but not in flax (MISMATCHES L1). A single
    # value per channel, which torch refuses, is left uncorrected.
    count = x.value.size // channels
    unbiased = variance.value * count / max(count - 1, 1)
    scope.updated_stats[f"{name}/mean"] = _move(running_mean, average.value)
    scope.updated_stats[f"{name}/var"] = _move(running_var, unbiased)

    factor = (variance + EPSILON) ** -0.5 * scale
    return scope.keep(name, (x - average) * factor + bias)


def normalize(kind: str, scope: Scope, name: str, x: Tensor) -> Tensor:
    """Applies the normalization layer `kind`: "none", "batch" or "layer"."""
    return NORMALIZATIONS[kind](scope, name, x)


def _scale_and_bias(scope: Scope, name: str, size: int) -> tuple[Tensor, Tensor]:
    scale = scope.param(f"{name}/scale", (size,), constant(1.0))
    bias = scope.param(f"{name}/bias", (size,), constant(0.0))
    return scale, bias


def _move(running: np.ndarray, batch: np.ndarray) -> np.ndarray:
    return (1 - MOMENTUM) * running + MOMENTUM * batch


# To add a value of `--normalization`: one function above and one row here.
NORMALIZATIONS = {
    "none": lambda scope, name, x: x,
    "batch": batch_norm,
    "layer": layer_norm,
}
