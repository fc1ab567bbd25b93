"""The gradient as the optimizer took it, by what it added to the moments."""

from typing import NamedTuple

import numpy as np

from parity.measured.first_moment import First
from parity.measured.fit_types import AVERAGE, DAMPENED, HEAVY_BALL
from parity.measured.history import History
from parity.measured.numbers import UNSEEN, Measured, agree, ratio
from parity.measured.second_moment import Second

ONE = Measured(1.0, 0.0)


class Gradient(NamedTuple):
    """s_t g + l w.

    Attributes:
      factors: s_t, one a step.
      pull: l, coupled decay.
      seen: [T, N] the gradient itself.
      form: of the momentum; "" if none or unknown.
      dampening: of the momentum.
    """

    factors: tuple[Measured, ...]
    pull: Measured
    seen: np.ndarray
    form: str = ""
    dampening: Measured = UNSEEN


def of_average(first: First) -> Gradient:
    """Returns the gradient behind m' = b m + (1 - b) g."""
    share = complement(first.decay)
    factors = tuple(ratio(gain, share) for gain in first.gains)
    pull = ratio(first.pull, share)
    return Gradient(factors, pull, first.increments / share.value, AVERAGE)


def of_second(history: History, second: Second) -> Gradient:
    """Returns the gradient behind a second moment alone."""
    share = complement(second.decay)
    summed = not share.is_seen
    shares = [gain if summed else ratio(gain, share) for gain in second.gains]
    factors = tuple(_root(part) for part in shares)
    # Of what is not to be told from the gradient itself.
    plain = all(part.holds(1.0) for part in factors)
    values = np.array([1.0 if plain else part.value for part in factors])
    seen = values[:, None] * history.g
    if not second.pull.is_seen:
        return Gradient(factors, second.pull, seen)
    # The squares' cross term has the factor of the gradient in it.
    factor = float(np.median(values))
    pull = second.pull.times(factor)
    return Gradient(factors, pull, seen + pull.value * history.w)


def of_momentum(history: History, first: First) -> Gradient:
    """Returns the gradient behind a momentum, and the momentum's form."""
    share = complement(first.decay)
    gains, seen = first.gains, first.increments
    rest = gains[1:]
    dampened = (
        history.counts[0] == 0
        and len(rest) > 1
        and gains[0].holds(1.0)
        and not rest[0].holds(1.0)
        and all(agree(gain, rest[0]) for gain in rest)
    )
    if dampened:
        damp = Measured(1 - rest[0].value, rest[0].error)
        return Gradient((ONE,) * len(gains), first.pull, seen, DAMPENED, damp)
    form = _form(gains, share)
    if form == AVERAGE:
        return of_average(first)
    if form == HEAVY_BALL:
        return Gradient(gains, first.pull, seen, HEAVY_BALL)
    return Gradient((UNSEEN,) * len(gains), UNSEEN, seen)


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


def _root(square: Measured) -> Measured:
    if not square.is_bounded:
        return UNSEEN
    value = np.sqrt(max(square.value, 0.0))
    if not square.is_seen:
        return Measured(float(value), float(np.sqrt(max(square.high, 0.0))))
    return Measured(float(value), square.error / (2 * float(value)))
