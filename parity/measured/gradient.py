"""The gradient as the optimizer took it, by what it added to the moments."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.measured import rounding
from parity.measured.first_moment import First
from parity.measured.fit_types import AVERAGE, DAMPENED, HEAVY_BALL
from parity.measured.history import History
from parity.measured.numbers import SIGMAS, UNSEEN, Measured, agree, ratio
from parity.measured.second_moment import Second

ONE = Measured(1.0, 0.0)


class Gradient(NamedTuple):
    """s_t g + l w.

    Attributes:
      factors: s_t, one a step.
      pull: l, coupled decay.
      seen: [T, N] the gradient itself.
      noise: [T, N] its rounding where L2 may cancel it.
      form: of the momentum; "" if none or unknown.
      dampening: of the momentum.
    """

    factors: tuple[Measured, ...]
    pull: Measured
    seen: np.ndarray
    noise: np.ndarray
    form: str = ""
    dampening: Measured = UNSEEN


def of_average(first: First) -> Gradient:
    """Returns the gradient behind m' = b m + (1 - b) g."""
    share = complement(first.decay)
    factors = tuple(ratio(gain, share) for gain in first.gains)
    pull = ratio(first.pull, share)
    seen, noise = first.increments / share.value, first.noise / share.value
    return Gradient(factors, pull, seen, noise, AVERAGE)


def of_second(history: History, second: Second) -> Gradient:
    """Returns the gradient behind a second moment alone."""
    seen = pooled(second.factors)[:, None] * history.g
    noise = np.zeros_like(seen)
    if second.pull.is_seen:
        pulled = second.pull.value * history.w
        unsure = second.pull.error / SIGMAS * np.abs(history.w)
        noise = rounding.of_sum(seen, pulled) + unsure
        seen = seen + pulled
    return Gradient(second.factors, second.pull, seen, noise)


def pooled(factors: Sequence[Measured]) -> np.ndarray:
    """Returns the sharpest factor for all steps if they agree with it, else each one.

    Where L2 all but cancels the gradient, the ratio of both must be sharp.
    """
    sharpest = min(factors, key=lambda factor: factor.error)
    if sharpest.is_seen and all(factor.holds(sharpest.value) for factor in factors):
        return np.full(len(factors), sharpest.value)
    return np.array([factor.value if factor.is_seen else 0.0 for factor in factors])


def of_momentum(history: History, first: First) -> Gradient:
    """Returns the gradient behind a momentum, and the momentum's form."""
    share = complement(first.decay)
    gains, seen = first.gains, first.increments
    rest = list(gains[1:])
    dampened = (
        history.counts[0] == 0
        and len(rest) > 1
        and gains[0].holds(1.0)
        and not rest[0].holds(1.0)
        and all(agree(gain, rest[0]) for gain in rest)
    )
    if dampened:
        damp = Measured(1 - rest[0].value, rest[0].error)
        ones = (ONE,) * len(gains)
        return Gradient(ones, first.pull, seen, first.noise, DAMPENED, damp)
    form = _form(gains, share)
    if form == AVERAGE:
        return of_average(first)
    if form == HEAVY_BALL:
        return Gradient(gains, first.pull, seen, first.noise, HEAVY_BALL)
    return Gradient((UNSEEN,) * len(gains), UNSEEN, seen, first.noise)


def complement(decay: Measured) -> Measured:
    """Returns 1 - b."""
    return Measured(1 - decay.value, decay.error)


def _form(gains: tuple[Measured, ...], share: Measured) -> str:
    """Returns the form under which most steps, or all up to a power of 2, are plain."""
    heavy = sum(gain.holds(1.0) for gain in gains)
    average = sum(agree(gain, share) for gain in gains) if share.is_seen else 0
    if heavy != average:
        return HEAVY_BALL if heavy > average else AVERAGE
    if _are_one_power(gains):
        return HEAVY_BALL
    if share.is_seen and _are_one_power([ratio(gain, share) for gain in gains]):
        return AVERAGE
    return ""


def _are_one_power(factors) -> bool:
    """Returns True if all are the same power of 2."""
    if not all(factor.is_seen and factor.value > 0 for factor in factors):
        return False
    nearest = 2.0 ** np.round(np.log2(factors[0].value))
    return all(factor.holds(nearest) for factor in factors)
