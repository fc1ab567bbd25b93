"""Convolution and pooling of images [batch, height, width, channels].

Twin of torch_ref/models/convolution.py.
"""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from jaxnn.initializers import Initializer

CACHED_BYTES = 2**21
"""Bytes of patches that are made at a time, so that they stay in the CPU's cache."""


class Conv(nn.Module):
    """Cross-correlation with (size - 1) // 2 zeros on each side, for every stride.

    The parameters are `kernel` [size, size, in, out] and `bias` [out].

    Attributes:
      channels: channels of the output.
      size: height and width of the kernel.
      initializer: initial distribution of the parameters.
      stride: distance between two positions of the kernel.
      use_bias: False before a normalization, which has a bias of its own.
      algorithm: "patches", "direct" or "auto"; see `conv`.
    """

    channels: int
    size: int
    initializer: Initializer
    stride: int = 1
    use_bias: bool = True
    algorithm: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[batch, height, width, in] -> [batch, height', width', channels].

        height' = ceil(height / stride), and likewise the width.
        """
        shape = (self.size, self.size, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.initializer.kernel, shape, jnp.float32)
        bias = None
        if self.use_bias:
            start_bias = self.initializer.bias(math.prod(shape[:-1]))
            bias = self.param("bias", start_bias, (self.channels,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias)
        y = conv(x, kernel, self.stride, (self.size - 1) // 2, self.algorithm)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def conv(
    x: Array,
    kernel: Array,
    stride: int = 1,
    padding: int = 0,
    algorithm: str = "auto",
) -> Array:
    """y[b,i,j,o] = sum_{u,v,c} x[b, s i + u - p, s j + v - p, c] kernel[u,v,c,o].

    Args:
      x: [batch, height, width, in] images; zero outside.
      kernel: [kernel height, kernel width, in, out], of the same dtype.
      stride: distance s between two positions of the kernel.
      padding: zeros p on each of the four sides.
      algorithm: "patches" is a matrix product, "direct" the compiler's own convolution,
        "auto" the first on a CPU and the second elsewhere.

    Returns:
      [batch, (height + 2 p - kernel height) // s + 1, likewise for the width, out].
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_equal(x.shape[-1], kernel.shape[2])
    if algorithm == "auto":
        # XLA's CPU compiler runs the gradient of its own convolution tens of times
        # slower inside lax.scan than outside.
        algorithm = "patches" if jax.default_backend() == "cpu" else "direct"
    return ALGORITHMS[algorithm](x, kernel, stride, padding)


def max_pool(x: Array, size: int, stride: int | None = None, padding: int = 0) -> Array:
    """Largest value of each window.

    The gradient goes to the first maximum in row-major order, as in torch.

    Args:
      x: [batch, height, width, channels]; minus infinity outside.
      size: height and width of a window; windows that would cross the border are left
        out.
      stride: distance between two windows; None for `size`, so that none overlap.
      padding: rows and columns added on each of the four sides.
    """
    # Not lax.reduce_window, whose gradient is slow on a CPU.
    largest, *others = _windows(_pad(x, padding, -jnp.inf), size, size, stride or size)
    for value in others:
        # A comparison with NaN is false: without the second term a NaN would vanish
        # here.
        largest = jnp.where((value > largest) | jnp.isnan(value), value, largest)
    return largest


def average_pool(x: Array, size: int) -> Array:
    """Mean of each window, without overlap.

    Rows and columns that fill no window are left out.

    Args:
      x: [batch, height, width, channels].
      size: height and width of a window.
    """
    batch, height, width, channels = x.shape
    rows = height // size
    columns = width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(batch, rows, size, columns, size, channels).mean(axis=(2, 4))


def global_average_pool(x: Array) -> Array:
    """Mean over positions: [batch, height, width, channels] -> [batch, channels]."""
    return x.mean(axis=(1, 2))


def _patches_conv(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """A product of patches and kernel (im2col, Chellapilla et al. 2006)."""

    def convolve(x: Array) -> Array:
        height, width = kernel.shape[:2]
        windows = _windows(_pad(x, padding, 0), height, width, stride)
        patches = jnp.concatenate(windows, axis=-1)
        return patches @ kernel.reshape(-1, kernel.shape[-1])

    # As many examples at a time as leave their patches in the processor's cache.
    batch = len(x)
    positions = math.prod(jax.eval_shape(convolve, x).shape[1:3])
    bytes_each = positions * math.prod(kernel.shape[:-1]) * x.dtype.itemsize
    rows = _largest_divisor(batch, CACHED_BYTES // bytes_each)
    if rows == batch:
        return convolve(x)

    # The backward pass makes the patches again instead of keeping all of them.
    chunks = x.reshape(batch // rows, rows, *x.shape[1:])
    y = lax.map(jax.checkpoint(convolve), chunks)
    return y.reshape(batch, *y.shape[2:])


def _direct_conv(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _pad(x: Array, padding: int, value: float) -> Array:
    if not padding:
        return x
    sides = (padding, padding, 0)
    widths = [(0, 0, 0), sides, sides, (0, 0, 0)]
    return lax.pad(x, jnp.asarray(value, x.dtype), widths)


def _windows(x: Array, height: int, width: int, stride: int) -> list[Array]:
    """Element (u, v) of every window, for each u, v in row-major order.

    Returns:
      height * width arrays [batch, rows, columns, channels].
    """
    bottom = x.shape[1] - height + 1
    right = x.shape[2] - width + 1
    return [
        x[:, u : u + bottom : stride, v : v + right : stride]
        for u in range(height)
        for v in range(width)
    ]


def _largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor of a number up to a limit, 1 at least."""
    candidates = range(min(number, limit), 0, -1)
    return next((divisor for divisor in candidates if number % divisor == 0), 1)


ALGORITHMS = {"patches": _patches_conv, "direct": _direct_conv}
