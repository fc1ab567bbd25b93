"""v' = b v + c_t (g + l w)^2, or the larger of b v and |g|: the second moment."""

from typing import NamedTuple

import numpy as np

from parity.measured import rounding
from parity.measured.first_moment import solve_shared
from parity.measured.history import History
from parity.measured.least_squares import NO_QUALITY, Quality, quality
from parity.measured.numbers import UNSEEN, Measured, mean, ratio

SQUARES = "squares"
MAXIMUM = "maximum"


class Second(NamedTuple):
    """A second moment.

    Attributes:
      kind: SQUARES or MAXIMUM.
      decay: b; 1 is Adagrad's sum.
      gains: c_t, one a step.
      pull: l, what L2 adds to the gradient, in units of the recorded gradient.
      eps: what is added to |g| under MAXIMUM.
      quality: how well the formula reproduces v'.
    """

    kind: str
    decay: Measured
    gains: tuple[Measured, ...]
    pull: Measured
    eps: Measured
    quality: Quality


def fit_squares(history: History, seen: np.ndarray | None) -> Second:
    """Fits an average or a sum of squares.

    Args:
      history: with a second moment.
      seen: [T, N] gradient as the first moment took it, up to a factor; None: unknown.
    """
    if seen is not None:
        return _fit(history, [np.square(seen)])
    g, w = history.g, history.w
    with_pull = _fit(history, [g * g, 2 * g * w, w * w])
    if with_pull.pull.is_seen:
        return with_pull
    return _fit(history, [g * g])._replace(pull=with_pull.pull)


def _fit(history: History, columns: list[np.ndarray]) -> Second:
    assert history.v is not None and history.new_v is not None
    sigma = rounding.of_moment(np.abs(history.v), history.new_v)
    solution = solve_shared([history.v], columns, history.new_v, sigma)
    found = quality(solution.residuals, solution.values.size)
    stretch = found.rms if found.freedom > 0 else 1.0
    steps = len(history.counts)

    def of_column(column: int) -> list[Measured]:
        first = 1 + column * steps
        return [
            solution.measured(first + i, stretch=stretch) for i in range(steps)
        ]

    decay = solution.measured(0, stretch=stretch)
    gains = of_column(0)
    pull = UNSEEN
    if len(columns) > 1:
        pull = mean([ratio(b, a) for a, b in zip(gains, of_column(1))])
    return Second(SQUARES, decay, tuple(gains), pull, UNSEEN, found)


def fit_maximum(history: History, seen: np.ndarray) -> Second:
    """Fits v' = max(b v, |g| + eps), Adamax's infinity norm.

    Kingma & Ba 2015, Algorithm 2; eps as in torch/optim/adamax.py.

    Args:
      history: with a second moment.
      seen: [T, N] gradient with its right factor.
    """
    assert history.v is not None and history.new_v is not None
    size = np.abs(seen)
    eps = _added(history.new_v - size, history.new_v)
    is_kept = (history.v > 0) & (history.new_v > (size + eps.high) * (1 + 1e-4))
    if not is_kept.any():
        return Second(MAXIMUM, UNSEEN, (), UNSEEN, eps, NO_QUALITY)

    shrunk = history.new_v[is_kept] / history.v[is_kept]
    b = float(np.median(shrunk))
    decay = Measured(b, 4 * rounding.HALF_ULP)
    expected = np.maximum(b * history.v, size + max(eps.value, 0.0))
    sigma = rounding.of_moment(history.v, history.new_v)
    sigma = sigma + 0.25 * eps.error
    return Second(
        MAXIMUM,
        decay,
        (),
        UNSEEN,
        eps,
        quality((history.new_v - expected) / sigma, 2),
    )


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
