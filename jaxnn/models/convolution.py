"""Convolution and pooling of images [batch, height, width, channels], fast in a
compiled loop on every device.

XLA's CPU compiler runs the gradient of its own convolution tens of times slower inside
`lax.scan` than outside. There a convolution is a product of patches and kernel instead
(im2col, Chellapilla et al. 2006).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxnn.initializers import Initializer

CACHED_BYTES = 2**21


class Conv(nn.Module):
    """Cross-correlation with torch's symmetric padding of (size - 1) // 2 zeros, for
    every stride.

    Its parameters are `kernel` [size, size, in, out] and, where asked for, `bias`
    [out].

    Attributes:
      channels: of the output.
      size: height and width of the kernel.
      initializer: how the parameters start.
      stride: between two positions of the kernel.
      use_bias: False in front of a normalization that has a bias of its own.
      algorithm: "patches", "direct" or "auto"; see `conv`.
    """

    channels: int
    size: int
    initializer: Initializer
    stride: int = 1
    use_bias: bool = True
    algorithm: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, height, width, in] -> [batch, ceil(height / stride), ceil(width /
        stride), channels]."""
        shape = (self.size, self.size, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.initializer.kernel, shape, jnp.float32)
        start_bias = self.initializer.bias(math.prod(shape[:-1]))
        bias = (
            self.param("bias", start_bias, (self.channels,), jnp.float32)
            if self.use_bias
            else None
        )
        x, kernel, bias = promote_dtype(x, kernel, bias)
        y = conv(x, kernel, self.stride, (self.size - 1) // 2, self.algorithm)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: int = 0,
    algorithm: str = "auto",
) -> jax.Array:
    """y[b, i, j, o] = sum of x[b, stride i + u - padding, stride j + v - padding, c]
    kernel[u, v, c, o] over u, v, c.

    Args:
      x: [batch, height, width, in]; zero outside.
      kernel: [kernel height, kernel width, in, out], of the same dtype.
      stride: between two positions of the kernel.
      padding: zeros on each of the four sides.
      algorithm: "patches" is a matrix product, "direct" the compiler's own convolution,
        "auto" the first on a CPU and the second elsewhere.

    Returns:
      [batch, (height + 2 padding - kernel height) // stride + 1, likewise for the
      width, out].
    """
    if algorithm == "auto":
        algorithm = "patches" if jax.default_backend() == "cpu" else "direct"
    return ALGORITHMS[algorithm](x, kernel, stride, padding)


def max_pool(
    x: jax.Array, size: int, stride: int | None = None, padding: int = 0
) -> jax.Array:
    """The largest value of each window; its gradient goes to the first maximum in
    row-major order, as in torch.

    Args:
      x: [batch, height, width, channels]; minus infinity outside.
      size: height and width of a window; windows that would cross the border are left
        out.
      stride: between two windows; None: `size`, so that they do not overlap.
      padding: on each of the four sides.
    """
    largest, *others = _windows(_pad(x, padding, -jnp.inf), size, size, stride or size)
    for value in others:
        # A comparison with NaN is false: without the second term a NaN would vanish
        # here.
        largest = jnp.where((value > largest) | jnp.isnan(value), value, largest)
    return largest


def average_pool(x: jax.Array, size: int) -> jax.Array:
    """The mean of each size x size window, [batch, height, width, channels] -> [batch,
    height // size, ...].

    Windows do not overlap; rows and columns that fill no window are left out.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(batch, rows, size, columns, size, channels).mean(axis=(2, 4))


def global_average_pool(x: jax.Array) -> jax.Array:
    """The mean over all positions, [batch, height, width, channels] -> [batch,
    channels]."""
    return x.mean(axis=(1, 2))


def _patches_conv(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
    """As many examples at a time as leave their patches in the processor's cache;
    backward makes them again."""

    def convolve(x: jax.Array) -> jax.Array:
        patches = jnp.concatenate(
            _windows(_pad(x, padding, 0), *kernel.shape[:2], stride), axis=-1
        )
        return patches @ kernel.reshape(-1, kernel.shape[-1])

    batch, positions = len(x), math.prod(jax.eval_shape(convolve, x).shape[1:3])
    bytes_each = positions * math.prod(kernel.shape[:-1]) * x.dtype.itemsize
    rows = _largest_divisor(batch, CACHED_BYTES // bytes_each)
    if rows == batch:
        return convolve(x)
    y = lax.map(jax.checkpoint(convolve), x.reshape(batch // rows, rows, *x.shape[1:]))
    return y.reshape(batch, *y.shape[2:])


def _direct_conv(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _pad(x: jax.Array, padding: int, value: float) -> jax.Array:
    sides = (padding, padding, 0)
    return (
        lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), sides, sides, (0, 0, 0)])
        if padding
        else x
    )


def _windows(x: jax.Array, height: int, width: int, stride: int) -> list[jax.Array]:
    """Element (u, v) of every window, for each u, v in row-major order: [batch, rows,
    columns, channels] each."""
    bottom, right = x.shape[1] - height + 1, x.shape[2] - width + 1
    return [
        x[:, u : u + bottom : stride, v : v + right : stride]
        for u in range(height)
        for v in range(width)
    ]


def _largest_divisor(number: int, limit: int) -> int:
    return max(
        (
            divisor
            for divisor in range(1, min(number, limit) + 1)
            if number % divisor == 0
        ),
        default=1,
    )


ALGORITHMS = {"patches": _patches_conv, "direct": _direct_conv}
