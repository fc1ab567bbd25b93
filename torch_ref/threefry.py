"""Threefry-2x32: the very bits of jax.random, from the same key (Salmon et al. 2011).

Twin of jaxnn/threefry.py.

Matches jax with `jax_threefry_partitionable` on (its default): element i of an array is
the exclusive or of the two words that the cipher makes of the 64-bit counter i.
"""

import math

import numpy as np
import torch
from torch import Tensor as Array

Key = tuple[int, int]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def key(seed: int) -> Key:
    """jax.random.key(seed) for 0 <= seed < 2**31."""
    return 0, seed


def fold_in(key: Key, data: int) -> Key:
    """jax.random.fold_in(key, data) for 0 <= data < 2**31."""
    high = torch.tensor([0], dtype=torch.int32)
    low = torch.tensor([data], dtype=torch.int32)
    first, second = threefry_2x32(key, high, low)
    return int(first), int(second)


def bits(
    key: Key,
    shape: tuple[int, ...],
    first_row: int = 0,
    device: torch.device | str = "cpu",
) -> Array:
    """Rows of what jax.random.bits(key, ...) draws for a larger array.

    Args:
      key: two words.
      shape: [rows, ...] of the rows to draw, fewer than 2**31 elements.
      first_row: index of the first of them in the larger array, below 2**31.
      device: where to draw.

    Returns:
      `shape` int32, the bits of uint32.
    """
    first, second = threefry_2x32(key, *counters(shape, first_row, device))
    return (first ^ second).reshape(shape)


def bernoulli(
    key: Key,
    p: np.float32,
    shape: tuple[int, ...],
    first_row: int = 0,
    device: torch.device | str = "cpu",
) -> Array:
    """Rows of what jax.random.bernoulli(key, p, ...) draws for a larger array.

    Args:
      key: two words.
      p: probability of True.
      shape: [rows, ...] of the rows to draw, fewer than 2**31 elements.
      first_row: index of the first of them in the larger array, below 2**31.
      device: where to draw.

    Returns:
      `shape` bool.
    """
    drawn = bits(key, shape, first_row, device)
    # The 23 high bits become the mantissa of a float in [1, 2).
    mantissa = _shift_right(drawn, 9) | 0x3F800000
    uniform = mantissa.view(torch.float32) - 1
    return uniform < float(p)


def counters(
    shape: tuple[int, ...], first_row: int, device: torch.device | str = "cpu"
) -> tuple[Array, Array]:
    """Indices of the elements of some rows in a larger array, in row-major order.

    Args:
      shape: [rows, ...] of those rows, n elements.
      first_row: index of the first row in the larger array.
      device: where to count.

    Returns:
      High and low words of the indices, [n] int32 each.
    """
    start = first_row * math.prod(shape[1:])
    high, low = start >> 32, start % 2**32
    count = math.prod(shape)
    # Elements before the low word wraps; after that the high word is one more.
    before = min(count, 2**32 - low)
    words = torch.full((count,), _as_int32(high), dtype=torch.int32, device=device)
    words[before:] += 1
    indices = torch.arange(count, dtype=torch.int32, device=device) + _as_int32(low)
    return words, indices


# torch has few operations on uint32. int32 overflow wraps as uint32's does, so that the
# bits are the same under another sign.
def threefry_2x32(key: Key, high: Array, low: Array) -> tuple[Array, Array]:
    """Twenty rounds of the cipher on int32 words.

    Args:
      key: two words.
      high: [n] int32 counter words.
      low: [n] int32 counter words.

    Returns:
      Two [n] int32 arrays of random bits.
    """
    words = [_as_int32(word) for word in (key[0], key[1], key[0] ^ key[1] ^ _PARITY)]
    x0 = high + words[0]
    x1 = low + words[1]
    # Four rounds, then a key injection, five times over.
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << rotation | _shift_right(x1, 32 - rotation)) ^ x0
        x0 = x0 + words[(group + 1) % 3]
        x1 = x1 + _as_int32(words[(group + 2) % 3] + group + 1)
    return x0, x1


def _shift_right(x: Array, bits: int) -> Array:
    """Logical shift of int32 words."""
    # torch's >> on int32 copies the sign into the high bits.
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _as_int32(word: int) -> int:
    """A word modulo 2**32, in [-2**31, 2**31)."""
    return (word + 2**31) % 2**32 - 2**31
