"""Clipping by value: the optimizer saw no entry of a gradient beyond one bound.

Then no line goes through gradients and moments. It does through the small entries of
each step, and shows what was seen of the large ones.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from parity.measured import rounding
from parity.measured.first_moment import solve_shared
from parity.measured.history import History, sampled
from parity.measured.least_squares import Solution, quality, solve
from parity.measured.numbers import SIGMAS, UNSEEN, Measured, mean, ratio

FEWEST = 3
"""Entries that must lie on the bound."""
SMALL = (0.5, 0.25, 0.1)
"""Shares of the entries, by size, that are tried as those below the bound."""
CLEAR = 1e-3
"""Relative distance from the bound at which an entry is surely beyond it."""
LEFT_OUT = 1e30
"""Deviation of an entry that must not count."""


class Line(NamedTuple):
    """A step's change as a line through parts of its gradient.

    Attributes:
      solution: coefficients.
      gains: [parts][T] coefficient of each part at each step.
      rest: [T, N] the change without what does not come from the gradient.
    """

    solution: Solution
    gains: list[list[Measured]]
    rest: np.ndarray


def bound_of(histories: Mapping[str, History]) -> Measured:
    """Returns the bound that one of these tensors shows; unseen if none does."""
    for history in sorted(histories.values(), key=lambda one: -one.g.shape[1]):
        found = _bound(sampled(history))
        if found.is_seen:
            return found
    return UNSEEN


def clipped(history: History, bound: Measured) -> History:
    """Returns a history whose gradients are clipped, if there is a bound."""
    if not bound.is_seen:
        return history
    return history._replace(g=np.clip(history.g, -bound.value, bound.value))


def _bound(history: History) -> Measured:
    if history.m is None and history.v is not None:
        # A second moment alone has no line through the gradient.
        return UNSEEN
    sigma, sizes = _sigma(history), np.abs(history.g)
    for share in SMALL:
        small = sizes <= np.quantile(sizes, share, axis=1, keepdims=True)
        line = _line(history, [history.g], np.where(small, sigma, LEFT_OUT))
        left = line.solution.residuals.reshape(sizes.shape)[small]
        gains = line.gains[0]
        unknowns = line.solution.values.size
        if quality(left, unknowns).is_good and all(gain.is_seen for gain in gains):
            scale = np.array([gain.value for gain in gains])[:, None]
            return _of_seen(history, line.rest / scale, sigma / np.abs(scale))
    return UNSEEN


def _of_seen(history: History, seen: np.ndarray, sigma: np.ndarray) -> Measured:
    """Returns the one size that all larger entries were seen with, if they were."""
    highest = float(np.max(np.abs(seen)))
    beyond = np.abs(history.g) > highest * (1 + CLEAR)
    if np.count_nonzero(beyond) < FEWEST:
        return UNSEEN
    sizes, sigmas = np.abs(seen[beyond]), sigma[beyond]
    bound = float(np.median(sizes))
    # The line is known as well as small entries show it.
    allowed = SIGMAS * sigmas + CLEAR * bound
    return _refined(history, bound) if np.all(abs(sizes - bound) <= allowed) else UNSEEN


def _refined(history: History, bound: float) -> Measured:
    """Returns the bound by all entries: what large ones gain over small ones."""
    large = np.abs(history.g) > bound
    parts = [np.where(large, 0.0, history.g), np.where(large, np.sign(history.g), 0.0)]
    line = _line(history, parts, _sigma(history))
    if not quality(line.solution.residuals, line.solution.values.size).is_good:
        return UNSEEN
    bounds = [ratio(of_large, of_small) for of_small, of_large in zip(*line.gains)]
    return mean([one for one in bounds if one.is_seen])


def _sigma(history: History) -> np.ndarray:
    if history.m is None:
        return rounding.of_params(history)
    assert history.new_m is not None
    return rounding.of_moment(history.m, history.new_m)


def _line(history: History, parts: list[np.ndarray], sigma: np.ndarray) -> Line:
    """Fits w - w' = R_t parts + D_t w, or m' = b m + e w + c_t parts."""
    steps = range(len(history.counts))
    if history.m is None:
        columns = np.stack([*parts, history.w], axis=-1)
        change = history.w - history.new_w
        solution = solve(columns, change, sigma)
        gains = [[solution.measured(t, i) for t in steps] for i in range(len(parts))]
        return Line(solution, gains, change - solution.values[:, -1:] * history.w)
    assert history.new_m is not None
    shared = [history.m, history.w]
    solution = solve_shared(shared, parts, history.new_m, sigma)
    gains = [
        [solution.measured(2 + i * len(steps) + t) for t in steps]
        for i in range(len(parts))
    ]
    b, pull = solution.values[:2]
    return Line(solution, gains, history.new_m - b * history.m - pull * history.w)
