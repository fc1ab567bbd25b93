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


def bernoulli(
    key: Key, p: np.float32, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> Array:
    """jax.random.bernoulli(key, p, shape): bool, fewer than 2**31 elements."""
    # Below 2**32 elements the high word of every counter is 0.
    low = torch.arange(math.prod(shape), dtype=torch.int32, device=device)
    first, second = threefry_2x32(key, torch.zeros_like(low), low)
    # The 23 high bits become the mantissa of a float in [1, 2).
    mantissa = _shift_right(first ^ second, 9) | 0x3F800000
    uniform = mantissa.view(torch.float32) - 1
    return (uniform < float(p)).reshape(shape)


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
