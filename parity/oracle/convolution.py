"""Convolution and pooling of [batch, height, width, channels] images.

Both are built from strided slices of the image, whose gradients the tape knows, so that
neither needs a vector-Jacobian product of its own.
"""

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
    initializer: Initializer,
    stride: int = 1,
    use_bias: bool = True,
) -> Tensor:
    """Convolution layer: [batch, height, width, in] -> [..., channels].

    Args:
      scope: parameters.
      name: name of the layer.
      channels: output channels.
      size: height and width of the kernel.
      x: [batch, height, width, in].
      initializer: distributions of kernel and bias.
      stride: step between two positions of the kernel.
      use_bias: False before a batch normalization, which would cancel the bias.
    """
    shape = (size, size, x.shape[-1], channels)
    kernel = scope.param(f"{name}/kernel", shape, initializer.kernel)
    # The same padding on both sides, as in torch. XLA's "SAME" pads (0, 1) at stride 2
    # (MISMATCHES L5).
    y = conv(x, kernel, stride, padding=(size - 1) // 2)
    if use_bias:
        fan_in = math.prod(shape[:-1])
        y = y + scope.param(f"{name}/bias", (channels,), initializer.bias(fan_in))
    return scope.keep(name, y)


def conv(x: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolution as one matrix product (im2col, Chellapilla et al. 2006).

    y[b, i, j, o] = sum over u, v, c of
      x[b, stride i + u - padding, stride j + v - padding, c] kernel[u, v, c, o]

    Args:
      x: [batch, height, width, in]; zero outside.
      kernel: [kernel height, kernel width, in, out].
      stride: step between two positions of the kernel.
      padding: zeros added to each of the four sides.

    Returns:
      [batch, rows, columns, out].
    """
    height, width, channels_in, channels_out = kernel.shape
    windows = _windows(_surround(x, padding, 0.0), height, width, stride)

    # Row-major order of windows, then channels: the order of the flattened kernel.
    patches = concatenate(windows, axis=-1)
    rows = reshape(patches, (-1, height * width * channels_in))
    matrix = reshape(kernel, (-1, channels_out))
    return reshape(rows @ matrix, (*patches.shape[:-1], channels_out))


def max_pool(
    x: Tensor, size: int, stride: int | None = None, padding: int = 0
) -> Tensor:
    """Maximum of each window; ties send the gradient to the first in row-major order.

    Args:
      x: [batch, height, width, channels]; minus infinity outside.
      size: height and width of a window. Windows that cross the border are dropped.
      stride: step between two windows, or None for `size`.
      padding: added to each of the four sides.
    """
    # Padding with minus infinity never wins, whatever the sign of the inputs.
    surrounded = _surround(x, padding, -np.inf)
    largest, *others = _windows(surrounded, size, size, stride or size)
    for value in others:
        # `maximum` gives the derivative of a tie to its second argument. The running
        # maximum stands there, so that the earliest of equal values keeps it, as in
        # torch (MISMATCHES L8).
        largest = maximum(value, largest)
    return largest


def average_pool(x: Tensor, size: int) -> Tensor:
    """Mean of each size x size window, without overlap; incomplete ones are dropped."""
    windows = _windows(x, size, size, size)
    return sum(windows[1:], start=windows[0]) / float(len(windows))


def global_average_pool(x: Tensor) -> Tensor:
    """Mean over positions: [batch, height, width, channels] -> [batch, channels]."""
    return mean(x, axis=(1, 2))


def _surround(x: Tensor, padding: int, value: float) -> Tensor:
    if not padding:
        return x
    for axis in (1, 2):
        x = pad(x, padding, padding, axis, value)
    return x


def _windows(x: Tensor, height: int, width: int, stride: int) -> list[Tensor]:
    """Returns element (u, v) of every window, for each (u, v) in row-major order.

    Each is [batch, rows, columns, channels].
    """
    # Last start of a window that fits, plus one.
    bottom = x.shape[1] - height + 1
    right = x.shape[2] - width + 1
    return [
        x[:, u : u + bottom : stride, v : v + right : stride]
        for u in range(height)
        for v in range(width)
    ]


# To add a value of `--pool`: one function above and one row here.
POOLS = {"max": max_pool, "average": average_pool}
