"""Moments that were not recorded, rebuilt from the gradients since update 0."""

from typing import NamedTuple

import numpy as np

from parity.measured.history import History
from parity.measured.numbers import SIGMAS, Measured
from parity.measured.rounding import HALF_ULP


class Recipe(NamedTuple):
    """Which moments a family keeps.

    Attributes:
      has_average: its first moment is m = b m + (1 - b) g.
      has_heavy_ball: its first moment is m = b m + g.
      has_second: it averages squares.
      has_sum: it sums squares.
    """

    has_average: bool = False
    has_heavy_ball: bool = False
    has_second: bool = False
    has_sum: bool = False

    @property
    def decays(self) -> int:
        """Number of unknown decays."""
        return (self.has_average or self.has_heavy_ball) + self.has_second


def can_rebuild(history: History) -> bool:
    """Returns True if all gradients since update 0 were recorded, moments not."""
    counts = history.counts
    starts = counts == tuple(range(len(counts))) and len(counts) > 2
    return starts and history.m is None and history.v is None


def with_moments(history: History, recipe: Recipe, decays: np.ndarray) -> History:
    """Returns the history with the moments that these decays make of its gradients.

    Args:
      history: since update 0.
      recipe: which moments.
      decays: of the first moment, then of the second, as far as the recipe has them.
    """
    left = list(decays)
    if recipe.has_average or recipe.has_heavy_ball:
        b = left.pop(0)
        gain = 1 - b if recipe.has_average else 1.0
        m, new_m = _accumulated(gain * history.g, b)
        history = history._replace(m=m, new_m=new_m)
    if recipe.has_second:
        b = left.pop(0)
        v, new_v = _accumulated((1 - b) * np.square(history.g), b)
        history = history._replace(v=v, new_v=new_v)
    if recipe.has_sum:
        v, new_v = _accumulated(np.square(history.g), 1.0)
        history = history._replace(v=v, new_v=new_v)
    return history


def with_rounding(known: History, recipe: Recipe, decays: np.ndarray) -> History:
    """Returns a rebuilt history whose first moment is off by its float32 rounding.

    Args:
      known: with moments.
      recipe: which moments.
      decays: of the first moment, then of the second.
    """
    if known.new_m is None:
        return known
    gain = 1 - decays[0] if recipe.has_average else 1.0
    _, size = _accumulated(gain * np.abs(known.g), decays[0])
    return known._replace(new_m=known.new_m + 2 * HALF_ULP * size)


def _accumulated(increments: np.ndarray, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns [T, N] x before and x after each x = b x + increment, from x = 0."""
    after = np.zeros_like(increments)
    x = np.zeros(increments.shape[1])
    for step, increment in enumerate(increments):
        x = b * x + increment
        after[step] = x
    before = np.concatenate([np.zeros_like(after[:1]), after[:-1]])
    return before, after


def decays_of(logarithms: np.ndarray | float) -> np.ndarray:
    """Returns the decays b by log(1 - b), in which they are searched."""
    return 1 - np.exp(np.clip(logarithms, -14, -1e-3))


def measured(
    logarithms: np.ndarray, slopes: np.ndarray, rms: float, decays: int
) -> list[Measured]:
    """Returns the decays with their intervals.

    Args:
      logarithms: log(1 - b) of the fit, and further unknowns.
      slopes: derivatives of the residuals by all of them.
      rms: root mean square of the residuals.
      decays: how many of the unknowns are decays.
    """
    scale = np.sqrt(np.sum(np.square(slopes), axis=0))
    unit = slopes / np.where(scale > 0, scale, 1.0)
    spread = np.sqrt(np.maximum(np.diag(np.linalg.pinv(unit.T @ unit)), 0))
    deviations = np.where(scale > 0, spread / np.where(scale > 0, scale, 1.0), np.inf)
    return [
        Measured(
            float(decays_of(logarithm)),
            float(np.exp(logarithm) * SIGMAS * deviation * max(1.0, rms)) + 2.0**-24,
        )
        for logarithm, deviation in zip(logarithms[:decays], deviations)
    ]
