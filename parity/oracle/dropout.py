"""Dropout with the very bits of jax.random: Threefry-2x32 (Salmon et al. 2011) in
NumPy.

Element i of a mask comes from the 64-bit counter i alone, so the first rows of a
batch's mask are the mask of the batch's first rows, and a batch need not be padded to
draw them.
"""

import math
from typing import NamedTuple

import numpy as np

from parity.oracle.operations import where
from parity.oracle.tensor import Tensor

Key = tuple[np.uint32, np.uint32]
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


class Masks(NamedTuple):
    """Where a training step's masks come from.

    Attributes:
      seed: of the run.
      step: batches seen before, skipped ones counted.
      first_row: of the rows at hand among the batch's.
    """

    seed: int
    step: int
    first_row: int = 0


def dropout(x: Tensor, rate: float, layer: int, masks: Masks | None) -> Tensor:
    """Zeroes each unit with probability `rate` and divides the rest by 1 - rate
    (Srivastava et al. 2014).

    Args:
      x: [rows, ...].
      rate: probability of dropping, in [0, 1).
      layer: index of the dropout layer.
      masks: None outside training, which returns x.
    """
    if masks is None or rate == 0:
        return x
    return where(mask(masks, layer, 1 - rate, x.shape), x / (1 - rate), 0.0)


def mask(masks: Masks, layer: int, keep: float, shape: tuple[int, ...]) -> np.ndarray:
    """[rows, ...] bool, True where a unit is kept: jax.random.bernoulli of (seed, step,
    layer)."""
    key = threefry((0, masks.seed), 0, masks.step)
    key = threefry(key, 0, layer)
    first = masks.first_row * math.prod(shape[1:])
    left, right = threefry(
        key, 0, np.arange(first, first + math.prod(shape), dtype=np.uint32)
    )
    # The 23 high bits as a fraction: what float32 holds of a number in [0, 1).
    uniform = ((left ^ right) >> np.uint32(9)) * 2.0**-23
    return (uniform < np.float32(keep)).reshape(shape)


def threefry(key, high, low) -> Key:
    """Twenty rounds of the cipher: two key words, [...] counters -> two [...] uint32
    words of random bits."""
    k0, k1 = (np.asarray(word, np.uint32) for word in key)
    words = (k0, k1, k0 ^ k1 ^ np.uint32(_PARITY))
    with np.errstate(over="ignore"):  # sums are meant modulo 2^32
        x0, x1 = (
            np.asarray(high, np.uint32) + words[0],
            np.asarray(low, np.uint32) + words[1],
        )
        for group in range(5):
            for rotation in _ROTATIONS[group % 2]:
                x0 = x0 + x1
                x1 = (x1 << np.uint32(rotation) | x1 >> np.uint32(32 - rotation)) ^ x0
            x0 = x0 + words[(group + 1) % 3]
            x1 = x1 + words[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1
