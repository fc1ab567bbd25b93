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


def key(seed: int) -> Key:
    """jax.random.key(seed) for 0 <= seed < 2**31."""
    return jnp.uint32(0), jnp.uint32(seed)


def fold_in(key: Key, data: Array | int) -> Key:
    """jax.random.fold_in(key, data) for 0 <= data < 2**31."""
    return threefry_2x32(key, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32))


def bernoulli(key: Key, p: np.float32, shape: tuple[int, ...]) -> Array:
    """jax.random.bernoulli(key, p, shape): bool, fewer than 2**31 elements."""
    # Below 2**32 elements the high word of every counter is 0.
    low = lax.iota(jnp.uint32, math.prod(shape))
    first, second = threefry_2x32(key, jnp.zeros_like(low), low)
    # The 23 high bits become the mantissa of a float in [1, 2).
    mantissa = (first ^ second) >> np.uint32(9) | np.uint32(0x3F800000)
    uniform = lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)
    return (uniform < p).reshape(shape)


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
