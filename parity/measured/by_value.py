"""Clipping by value: the optimizer saw no entry of a gradient beyond one bound.

Then no line goes through gradients and moments. It does through the small entries, and
shows what was seen of the large ones.
"""

from collections.abc import Mapping

import numpy as np

from parity.measured import rounding
from parity.measured.first_moment import fit_first
from parity.measured.history import History, sampled
from parity.measured.least_squares import quality, solve
from parity.measured.numbers import SIGMAS, UNSEEN, Measured

FEWEST = 3
"""Entries that must lie on the bound."""
SMALL = (0.5, 0.25, 0.1)
"""Shares of the entries, by size, that are tried as those below the bound."""
CLEAR = 1e-3
"""Relative distance from the bound at which an entry is surely beyond it."""


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
    largest = np.max(np.abs(history.g), axis=0)
    for share in SMALL:
        small = (largest <= np.quantile(largest, share)) & (largest > 0)
        seen = _seen(history, history.at(small)) if small.sum() >= FEWEST else None
        if seen:
            return _of_seen(history, *seen)
    return UNSEEN


def _of_seen(history: History, seen: np.ndarray, sigma: np.ndarray) -> Measured:
    """Returns the one size that all larger entries were seen with, if they were."""
    highest = float(np.max(np.abs(seen)))
    beyond = np.abs(history.g) > highest * (1 + CLEAR)
    if np.count_nonzero(beyond) < FEWEST:
        return UNSEEN
    sizes, sigmas = np.abs(seen[beyond]), sigma[beyond]
    bound = float(np.median(sizes))
    same = np.all(np.abs(sizes - bound) <= SIGMAS * sigmas)
    return Measured(bound, SIGMAS * float(np.median(sigmas))) if same else UNSEEN


def _seen(history: History, small: History) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns [T, N] the gradient as it was seen, by the line of small entries."""
    if history.m is not None:
        return _by_moment(history, small)
    return _by_update(history, small) if history.v is None else None


def _by_moment(
    history: History, small: History
) -> tuple[np.ndarray, np.ndarray] | None:
    first = fit_first(small)
    if not first.quality.is_good or not all(gain.is_seen for gain in first.gains):
        return None
    assert history.m is not None
    assert history.new_m is not None
    gains = np.array([gain.value for gain in first.gains])[:, None]
    pull = first.pull.value if first.pull.is_seen else 0.0
    rest = history.new_m - first.decay.value * history.m - pull * history.w
    return rest / gains, rounding.of_moment(history.m, history.new_m) / abs(gains)


def _by_update(
    history: History, small: History
) -> tuple[np.ndarray, np.ndarray] | None:
    columns = np.stack([-small.g, -small.w], axis=-1)
    solution = solve(columns, small.new_w - small.w, rounding.of_params(small))
    if not quality(solution.residuals, solution.values.size).is_good:
        return None
    rates, shrinks = (solution.values[:, place, None] for place in (0, 1))
    if not rates.all():
        return None
    rest = history.w - history.new_w - shrinks * history.w
    return rest / rates, rounding.of_params(history) / abs(rates)
