"""Convolution as a product of patches and kernel (im2col, Chellapilla et al. 2006)."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxnn.models import products

CACHED_BYTES = 2**21
"""Bytes of patches that are made at a time, so that they stay in the CPU's cache."""


def conv(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`convolution.conv`, as a product of matrices."""
    channels = kernel.shape[-1]

    def convolve(x: Array) -> Array:
        seen = patches(x, kernel.shape, stride, padding)
        return products.product(seen, kernel.reshape(-1, channels))

    rows = cached_examples(x, kernel.shape, stride, padding)
    if rows == len(x):
        return convolve(x)

    # The backward pass makes the patches again instead of keeping all of them.
    y = lax.map(jax.checkpoint(convolve), x.reshape(-1, rows, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])


def kernel_gradient(
    x: Array, grad: Array, shape: tuple[int, ...], stride: int, padding: int
) -> Array:
    """Gradient of `convolution.conv` by its kernel.

    Args:
      x: [batch, height, width, in] images.
      grad: [batch, rows, columns, out] gradient of the output.
      shape: (kernel height, kernel width, in, out).
      stride: distance between two positions of the kernel.
      padding: zeros on each of the four sides.
    """

    def of_examples(x: Array, grad: Array) -> Array:
        return products.kernel_gradient(patches(x, shape, stride, padding), grad)

    rows = cached_examples(x, shape, stride, padding)
    if rows == len(x):
        return of_examples(x, grad).reshape(shape)
    chunks = [part.reshape(-1, rows, *part.shape[1:]) for part in (x, grad)]
    zeros = jnp.zeros((math.prod(shape[:-1]), shape[-1]), grad.dtype)
    total, _ = lax.scan(
        lambda total, chunk: (total + of_examples(*chunk), None), zeros, tuple(chunks)
    )
    return total.reshape(shape)


def patches(x: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """What the kernel sees at each position.

    Args:
      x: [batch, height, width, in] images; zero outside.
      shape: (kernel height, kernel width, ...).
      stride: distance between two positions of the kernel.
      padding: zeros on each of the four sides.

    Returns:
      [batch, rows, columns, kernel height * kernel width * in].
    """
    padded = pad(x, padding, 0)
    return jnp.concatenate(windows(padded, shape[0], shape[1], stride), axis=-1)


def cached_examples(x: Array, shape: tuple[int, ...], stride: int, padding: int) -> int:
    """Returns how many examples at a time leave their patches in the cache."""
    whole = jax.eval_shape(lambda x: patches(x, shape, stride, padding), x)
    bytes_each = math.prod(whole.shape[1:]) * x.dtype.itemsize
    return _largest_divisor(len(x), CACHED_BYTES // bytes_each)


def pad(x: Array, padding: int, value: float) -> Array:
    """Adds rows and columns of a value on the four sides of each image."""
    if not padding:
        return x
    sides = (padding, padding, 0)
    widths = [(0, 0, 0), sides, sides, (0, 0, 0)]
    return lax.pad(x, jnp.asarray(value, x.dtype), widths)


def windows(x: Array, height: int, width: int, stride: int) -> list[Array]:
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


def largest(elements: Sequence[Array]) -> tuple[Array, Array]:
    """Returns the largest value of each window, and its place, int32.

    The first of equals in row-major order counts, as in torch.

    Args:
      elements: as from `windows`.
    """
    value, *others = elements
    place = jnp.zeros(value.shape, jnp.int32)
    for number, other in enumerate(others, 1):
        # A comparison with NaN is false: without the second term a NaN would vanish
        # here.
        is_larger = (other > value) | jnp.isnan(other)
        value = jnp.where(is_larger, other, value)
        place = jnp.where(is_larger, number, place)
    return value, place


def _largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor of a number up to a limit, 1 at least."""
    candidates = range(min(number, limit), 0, -1)
    return next((divisor for divisor in candidates if number % divisor == 0), 1)
