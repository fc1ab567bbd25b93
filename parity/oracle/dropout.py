"""Dropout with the same random bits as jax.random: Threefry-2x32 in NumPy.

The cipher is that of Salmon et al. 2011. Keys, counters and the conversion to uniform
numbers follow jax/_src/random/threefry2x32.py with `jax_threefry_partitionable`, the
default: element i of a mask depends on the 64-bit counter i alone. The mask of a
microbatch is therefore a slice of the mask of its batch, and no padding is needed.
"""

import math
from typing import NamedTuple

import numpy as np

from parity.oracle.operations import where
from parity.oracle.tensor import Tensor

Word = np.ndarray | np.uint32 | int
Key = tuple[Word, Word]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


class Masks(NamedTuple):
    """Source of the dropout masks of one training step.

    Attributes:
      seed: seed of the experiment.
      step: batches seen before, skipped steps included.
      first_row: index of the first row at hand in the global batch.
    """

    seed: int
    step: int
    first_row: int = 0


def dropout(x: Tensor, rate: float, layer: int, masks: Masks | None) -> Tensor:
    """Zeroes units with probability `rate` and scales the rest by 1 / (1 - rate).

    Srivastava et al. 2014.

    Args:
      x: [rows, ...] activations.
      rate: probability of dropping a unit, in [0, 1).
      layer: index of the dropout layer.
      masks: source of the mask, or None outside training, which returns x.
    """
    if masks is None or rate == 0:
        return x
    kept = mask(masks, layer, 1 - rate, x.shape)
    return where(kept, x / (1 - rate), 0.0)


def mask(masks: Masks, layer: int, keep: float, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the [rows, ...] bool mask that jax.random.bernoulli draws.

    Args:
      masks: seed, step and first row.
      layer: index of the dropout layer.
      keep: probability of True.
      shape: shape of the mask.
    """
    # jax.random.uniform in float32: the 23 high bits become the mantissa.
    uniform = (bits(masks, layer, shape) >> np.uint32(9)) * 2.0**-23
    # Compared with the float32 probability, as jax.random.bernoulli does.
    return uniform < np.float32(keep)


def bits(masks: Masks, layer: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the [rows, ...] uint32 words that jax.random.bits draws.

    Args:
      masks: seed, step and first row.
      layer: number folded into the key of the step.
      shape: shape of the result.
    """
    # jax.random.key(seed), then fold_in of the step and of the layer: to fold a number
    # in is to encrypt the counter (0, number).
    key = threefry((0, masks.seed), 0, masks.step)
    key = threefry(key, 0, layer)

    first = masks.first_row * math.prod(shape[1:])
    counters = np.arange(first, first + math.prod(shape), dtype=np.uint32)
    left, right = threefry(key, 0, counters)
    return np.reshape(left ^ right, shape)


def threefry(key: Key, high: Word, low: Word) -> Key:
    """Encrypts 64-bit counters with the 20 rounds of Threefry-2x32.

    Args:
      key: two uint32 words.
      high: [...] upper words of the counters.
      low: [...] lower words of the counters.

    Returns:
      Two [...] uint32 words of random bits.
    """
    k0, k1 = (np.asarray(word, np.uint32) for word in key)
    words = (k0, k1, k0 ^ k1 ^ np.uint32(_PARITY))

    # Sums are modulo 2^32 by design.
    with np.errstate(over="ignore"):
        x0 = np.asarray(high, np.uint32) + words[0]
        x1 = np.asarray(low, np.uint32) + words[1]
        for group in range(5):
            for rotation in _ROTATIONS[group % 2]:
                x0 = x0 + x1
                x1 = (x1 << np.uint32(rotation) | x1 >> np.uint32(32 - rotation)) ^ x0
            # Key words are injected after every fourth round.
            x0 = x0 + words[(group + 1) % 3]
            x1 = x1 + words[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1
