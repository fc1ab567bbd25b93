"""Convolution and pooling of images [batch, height, width, channels].

Twin of torch_ref/models/convolution.py.
"""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array

from jaxnn.initializers import Initializer
from jaxnn.models import cpu_convolution, disjoint_pooling, patches


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
        "cpu" the faster one for each pass on a CPU. "auto" is "direct", but on a CPU
        "cpu" for float32 and "patches" for other dtypes.

    Returns:
      [batch, (height + 2 p - kernel height) // s + 1, likewise for the width, out].
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_equal(x.shape[-1], kernel.shape[2])
    if algorithm == "auto":
        algorithm = _algorithm(x.dtype)
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
    stride = stride or size
    if stride == size and not padding and jax.default_backend() == "cpu":
        rows, columns = (length // size * size for length in x.shape[1:3])
        return disjoint_pooling.max_pool(x[:, :rows, :columns], size)
    # Not lax.reduce_window, whose gradient is slow on a CPU.
    padded = patches.pad(x, padding, -jnp.inf)
    value, _ = patches.largest(patches.windows(padded, size, size, stride))
    return value


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


def _algorithm(dtype: jnp.dtype) -> str:
    if jax.default_backend() != "cpu":
        return "direct"
    # The compiler's own convolution adds up float16 in float16.
    return "cpu" if dtype == jnp.float32 else "patches"


ALGORITHMS = {
    "patches": patches.conv,
    "direct": cpu_convolution.direct_conv,
    "cpu": cpu_convolution.conv,
}
