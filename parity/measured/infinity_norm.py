"""v' = max(b v, |g| + eps): Adamax's second moment."""

from typing import NamedTuple

import numpy as np

from parity.measured import rounding
from parity.measured.history import History
from parity.measured.least_squares import NO_QUALITY, Quality, quality
from parity.measured.numbers import UNSEEN, Measured


class Maximum(NamedTuple):
    """An infinity norm.

    Attributes:
      decay: b.
      eps: what is added to |g|.
      quality: how well the formula reproduces v'.
    """

    decay: Measured
    eps: Measured
    quality: Quality


def fit_maximum(history: History, seen: np.ndarray) -> Maximum:
    """Fits Adamax's infinity norm.

    Kingma & Ba 2015, Algorithm 2; eps as in torch/optim/adamax.py.

    Args:
      history: with a second moment.
      seen: [T, N] gradient as the optimizer took it.
    """
    assert history.v is not None
    assert history.new_v is not None
    size = np.abs(seen)
    eps = _added(history.new_v - size, history.new_v)
    is_kept = (history.v > 0) & (history.new_v > (size + eps.high) * (1 + 1e-4))
    if not is_kept.any():
        return Maximum(UNSEEN, eps, NO_QUALITY)

    b = float(np.median(history.new_v[is_kept] / history.v[is_kept]))
    expected = np.maximum(b * history.v, size + max(eps.value, 0.0))
    sigma = rounding.of_moment(history.v, history.new_v) + 0.25 * eps.error
    found = quality((history.new_v - expected) / sigma, 2)
    return Maximum(Measured(b, 4 * rounding.HALF_ULP), eps, found)


def _added(excess: np.ndarray, size: np.ndarray) -> Measured:
    """Returns what v' holds beyond |g|, where it follows |g|."""
    # Entries that kept b v exceed |g| by anything: the smallest excess is eps.
    noise = 8 * rounding.HALF_ULP * size
    upper = float(np.min(np.where(size > 0, excess + noise, np.inf)))
    follows = excess <= upper + noise
    weights = 1 / np.square(noise[follows] + rounding.TINY)
    value = float(np.sum(weights * excess[follows]) / np.sum(weights))
    error = float(np.min(noise[follows])) + rounding.TINY
    return Measured(value, error)
