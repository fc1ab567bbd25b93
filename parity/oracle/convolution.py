"""Convolution and pooling of images [batch, height, width, channels] by im2col
(Chellapilla et al. 2006)."""

import math

import numpy as np

from parity.oracle.initializers import Initializer
from parity.oracle.operations import concatenate, maximum, mean, pad, reshape
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor


def conv_layer(
    scope: Scope,
    name: str,
    channels: int,
    size: int,
    x: Tensor,
    start: Initializer,
    stride: int = 1,
    use_bias: bool = True,
) -> Tensor:
    """`conv` with (size - 1) // 2 zeros on each side, then its bias: [..., in] -> [...,
    channels]."""
    shape = (size, size, x.shape[-1], channels)
    y = conv(
        x, scope.param(f"{name}/kernel", shape, start.kernel), stride, (size - 1) // 2
    )
    bias = start.bias(math.prod(shape[:-1]))
    return scope.keep(
        name, y + scope.param(f"{name}/bias", (channels,), bias) if use_bias else y
    )


def conv(x: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """y[b, i, j, o] = sum of x[b, stride i + u - padding, stride j + v - padding, c]
    kernel[u, v, c, o] over u, v, c.

    Each window of x becomes a row of a matrix; the convolution is that matrix times the
    kernel's.

    Args:
      x: [batch, height, width, in]; zero outside.
      kernel: [kernel height, kernel width, in, out].
      stride: between two positions of the kernel.
      padding: zeros on each of the four sides.

    Returns:
      [batch, rows, columns, out].
    """
    height, width, channels_in, channels_out = kernel.shape
    patches = concatenate(
        _windows(_surround(x, padding, 0.0), height, width, stride), axis=-1
    )
    rows = reshape(patches, (-1, height * width * channels_in))
    return reshape(
        rows @ reshape(kernel, (-1, channels_out)), (*patches.shape[:-1], channels_out)
    )


def max_pool(
    x: Tensor, size: int, stride: int | None = None, padding: int = 0
) -> Tensor:
    """The largest value of each window; its gradient goes to the first maximum in
    row-major order.

    Args:
      x: [batch, height, width, channels]; minus infinity outside.
      size: height and width of a window; windows that would cross the border are left
        out.
      stride: between two windows; None: `size`.
      padding: on each of the four sides.
    """
    largest, *others = _windows(
        _surround(x, padding, -np.inf), size, size, stride or size
    )
    for value in others:
        largest = maximum(value, largest)  # of equals the gradient goes to the second
    return largest


def average_pool(x: Tensor, size: int) -> Tensor:
    """The mean of each size x size window, which do not overlap; borders that fill no
    window are left out."""
    windows = _windows(x, size, size, size)
    return sum(windows[1:], start=windows[0]) / float(len(windows))


def global_average_pool(x: Tensor) -> Tensor:
    """The mean over all positions: [batch, height, width, channels] -> [batch,
    channels]."""
    return mean(x, axis=(1, 2))


def _surround(x: Tensor, padding: int, value: float) -> Tensor:
    for axis in (1, 2) if padding else ():
        x = pad(x, padding, padding, axis, value)
    return x


def _windows(x: Tensor, height: int, width: int, stride: int) -> list[Tensor]:
    """Element (u, v) of every window, for each u, v in row-major order: [batch, rows,
    columns, channels] each."""
    bottom, right = x.shape[1] - height + 1, x.shape[2] - width + 1
    return [
        x[:, u : u + bottom : stride, v : v + right : stride]
        for u in range(height)
        for v in range(width)
    ]


POOLS = {"max": max_pool, "average": average_pool}
