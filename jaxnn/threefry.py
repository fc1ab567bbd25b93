"""Threefry-2x32: the very bits of jax.random, from the same key (Salmon et al. 2011).

Twin of torch_ref/threefry.py.

Matches jax with `jax_threefry_partitionable` on (its default): element i of an array is
the exclusive or of the two words that the cipher makes of the 64-bit counter i.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Key = tuple[Array, Array]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def key(seed: Array | int) -> Key:
    """jax.random.key(seed) for 0 <= seed < 2**31."""
    return jnp.uint32(0), jnp.uint32(seed)


def fold_in(key: Key, data: Array | int) -> Key:
    """jax.random.fold_in(key, data) for 0 <= data < 2**31."""
    return threefry_2x32(key, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32))


def bits(key: Key, shape: tuple[int, ...], first_row: Array | int = 0) -> Array:
    """Rows of what jax.random.bits(key, ...) draws for a larger array.

    Args:
      key: two words.
      shape: [rows, ...] of the rows to draw, fewer than 2**31 elements.
      first_row: index of the first of them in the larger array, below 2**31.

    Returns:
      `shape` uint32.
    """
    first, second = threefry_2x32(key, *counters(shape, first_row))
    return (first ^ second).reshape(shape)


def bernoulli(
    key: Key, p: np.float32, shape: tuple[int, ...], first_row: Array | int = 0
) -> Array:
    """Rows of what jax.random.bernoulli(key, p, ...) draws for a larger array.

    Args:
      key: two words.
      p: probability of True.
      shape: [rows, ...] of the rows to draw, fewer than 2**31 elements.
      first_row: index of the first of them in the larger array, below 2**31.

    Returns:
      `shape` bool.
    """
    drawn = bits(key, shape, first_row)
    # The 23 high bits become the mantissa of a float in [1, 2).
    mantissa = drawn >> np.uint32(9) | np.uint32(0x3F800000)
    uniform = lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)
    return uniform < p


def counters(shape: tuple[int, ...], first_row: Array | int) -> tuple[Array, Array]:
    """Indices of the elements of some rows in a larger array, in row-major order.

    Args:
      shape: [rows, ...] of those rows, n elements.
      first_row: index of the first row in the larger array.

    Returns:
      High and low words of the indices, [n] uint32 each.
    """
    high, low = _product(first_row, math.prod(shape[1:]))
    indices = low + lax.iota(jnp.uint32, math.prod(shape))
    # A sum that has wrapped is smaller than what was added to.
    return high + (indices < low).astype(jnp.uint32), indices


def _product(a: Array | int, b: int) -> tuple[Array, Array]:
    """High and low word of the product of two numbers below 2**32."""
    # JAX has no 64-bit integers by default; products of half words fit in a word.
    a = jnp.asarray(a).astype(jnp.uint32)
    mask, half = np.uint32(0xFFFF), np.uint32(16)
    low, high = a & mask, a >> half
    b_low, b_high = np.uint32(b & 0xFFFF), np.uint32(b >> 16)
    middle = high * b_low + (low * b_low >> half)
    other = low * b_high + (middle & mask)
    return high * b_high + (middle >> half) + (other >> half), a * np.uint32(b)


# On a CPU jax.random runs the rounds in a loop of its own, which inside a training scan
# costs more than the network. Unrolled, the cipher fuses with what uses the bits.
@jax.jit
def threefry_2x32(key: Key, high: Array, low: Array) -> tuple[Array, Array]:
    """Twenty rounds of the cipher on uint32 words.

    Args:
      key: two words.
      high: [...] uint32 counter words.
      low: [...] uint32 counter words.

    Returns:
      Two [...] uint32 arrays of random bits.
    """
    words = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x0 = high + words[0]
    x1 = low + words[1]
    # Four rounds, then a key injection, five times over.
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(rotation) | x1 >> np.uint32(32 - rotation)) ^ x0
        x0 = x0 + words[(group + 1) % 3]
        x1 = x1 + (words[(group + 2) % 3] + np.uint32(group + 1))
    return x0, x1
