"""A measured number: its value, and how far off it can be."""

import math
from collections.abc import Sequence
from typing import NamedTuple

SIGMAS = 6.0
"""Standard deviations in the half-width of an interval."""


class Measured(NamedTuple):
    """A number with its interval.

    Attributes:
      value: best estimate.
      error: half-width of the interval that holds the number; inf: the recording does
        not show it.
    """

    value: float
    error: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.error

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.error

    @property
    def is_bounded(self) -> bool:
        """True if the recording says anything of the number."""
        return math.isfinite(self.error) and math.isfinite(self.value)

    @property
    def is_seen(self) -> bool:
        """True if the number is measured and not zero."""
        return self.is_bounded and abs(self.value) > self.error

    def holds(self, number: float) -> bool:
        """Returns True if the interval holds a number."""
        return not self.is_bounded or self.low <= number <= self.high

    def times(self, factor: float) -> "Measured":
        """Returns the number times an exact factor."""
        return Measured(self.value * factor, self.error * abs(factor))

    def widened(self, error: float) -> "Measured":
        """Returns the number with a larger interval."""
        return Measured(self.value, self.error + error)

    def text(self) -> str:
        """Returns the number as a report says it."""
        if self.is_seen:
            return f"{self.value:.4g}"
        if self.is_bounded:
            return f"below {max(abs(self.low), abs(self.high)):.2g}"
        return "not measurable here"


UNSEEN = Measured(math.nan, math.inf)
"""A number of which the recording says nothing."""


def agree(a: Measured, b: Measured) -> bool:
    """Returns False only if both are bounded and their intervals are apart."""
    if not (a.is_bounded and b.is_bounded):
        return True
    return abs(a.value - b.value) <= a.error + b.error


def ratio(a: Measured, b: Measured) -> Measured:
    """Returns a / b; unseen if b may be zero."""
    if not (a.is_bounded and b.is_seen):
        return UNSEEN
    value = a.value / b.value
    return Measured(value, (a.error + abs(value) * b.error) / abs(b.value))


def mean(parts: Sequence[Measured]) -> Measured:
    """Returns the mean weighted by precision; unseen if the parts contradict it."""
    bounded = [part for part in parts if part.is_bounded]
    if not bounded:
        return UNSEEN
    tiny = 1e-300
    weights = [1 / (part.error + tiny) ** 2 for part in bounded]
    value = sum(w * p.value for w, p in zip(weights, bounded)) / sum(weights)
    # Errors of rounded settings are alike in all parts: they do not average out.
    whole = Measured(value, min(part.error for part in bounded))
    return whole if all(agree(whole, part) for part in bounded) else UNSEEN
