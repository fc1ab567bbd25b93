"""sign(b m + (1 - b) g): Lion's direction, whose b is seen where m and g disagree."""

import numpy as np

from parity.measured import rounding
from parity.measured.history import History
from parity.measured.least_squares import solve
from parity.measured.numbers import UNSEEN, Measured


def direction(history: History, seen: np.ndarray, b: float) -> np.ndarray:
    """[T, N] sign(b m + (1 - b) g) (Chen et al. 2023, Algorithm 2)."""
    assert history.m is not None
    return np.sign(b * history.m + (1 - b) * seen)


def fit_mix(history: History, seen: np.ndarray) -> Measured:
    """Returns b: between the entries that follow m and those that follow g.

    Args:
      history: with a first moment.
      seen: [T, N] gradient as the optimizer took it.
    """
    assert history.m is not None
    signs = _signs(history, seen)
    disagree = (np.sign(history.m) * np.sign(seen) < 0) & (signs != 0)
    if not disagree.any():
        return UNSEEN
    size = np.abs(seen) + np.abs(history.m)
    # Above this share of m, the entry follows m.
    turn = np.divide(np.abs(seen), size, out=np.zeros_like(size), where=size > 0)
    follows = signs == np.sign(history.m)
    low = np.max(turn[disagree & follows], initial=0.0)
    high = np.min(turn[disagree & ~follows], initial=1.0)
    return Measured(float(low + high) / 2, abs(float(high - low)) / 2)


def _signs(history: History, seen: np.ndarray) -> np.ndarray:
    """[T, N] signs of the directions, by rates and decay where m and g agree."""
    assert history.m is not None
    agreed = np.where(history.m * seen >= 0, np.sign(seen), 0.0)
    change = history.new_w - history.w
    sigma = rounding.of_params(history)
    sigma = np.where(agreed != 0, sigma, 1e30)
    columns = np.stack([-agreed, -history.w], axis=-1)
    fitted = solve(columns, change, sigma)
    pull = fitted.values[:, 1:] * history.w
    moved = -(change + pull)
    is_small = np.abs(moved) < 0.5 * np.abs(fitted.values[:, :1])
    return np.where(is_small, 0.0, np.sign(moved) * np.sign(fitted.values[:, :1]))
