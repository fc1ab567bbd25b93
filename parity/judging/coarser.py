"""Whether a switch brings a replay nearer, or only makes its noise larger.

A replay in fewer digits has a larger noise unit, under which anything small passes: z
falls although the distance does not. What really was computed in fewer digits is as far
from the finer replay as its rounding makes it, *everywhere*.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.judging.measure import Measurement
from parity.quantities import Key

LARGER = 4.0
"""A unit that grows by more than this under a switch is another unit."""
NEARER = 0.25
"""Distance over that without the switch, of what a switch mends in truth. Another sum
has another noise unit, which may be several times as large."""
NO_NEARER = 2.0
"""Distance over that without the switch. Two roundings of one number, each of the
other's size and independent, give 1.41; autocast, which rounds fewer layers than a
whole step in fewer digits, up to 1.6."""
TYPICAL = 2.0
"""Largest z of the median tensor: rounding itself gives about 1."""
IN_FLOAT32 = ("embedding", "norm")
"""Starts of the names of layers that autocast does not round (torch.amp's op-specific
behavior): their agreement says nothing."""
INERT = 1e-3
"""Change of a distance, of itself, by a switch that does not act on it."""
IMPROBABLE = 1e-3
"""Probability of an agreement in digits that the switch would have rounded away."""


class Pair(NamedTuple):
    """One tensor without and with a switch.

    Attributes:
      before: measurement without.
      after: measurement with.
    """

    before: Measurement
    after: Measurement

    @property
    def key(self) -> Key:
        """Quantity and name of the tensor."""
        return self.before.key

    @property
    def growth(self) -> float:
        """The unit with the switch over that without it."""
        return self.after.detectable / self.before.detectable

    @property
    def change(self) -> float:
        """The distance with the switch over that without it."""
        if not self.before.z:
            return math.inf if self.after.z else 1.0
        return self.growth * self.after.z / self.before.z


def only_makes_noise(
    before: Sequence[Measurement], after: Sequence[Measurement], threshold: float
) -> bool:
    """Returns True if what a switch mends of a step it mends for want of digits alone.

    Args:
      before: measurements of a step without the switch.
      after: measurements with it.
      threshold: largest z that passes.
    """
    coarser = [pair for pair in pairs(before, after) if pair.growth > LARGER]
    failed = [pair for pair in coarser if pair.before.z > threshold]
    if not failed:
        return False
    change = np.median([pair.change for pair in failed])
    # The distance itself has shrunk: no want of digits does that.
    if change < NEARER:
        return False
    is_no_nearer = change > NO_NEARER
    is_far = np.median([pair.after.z for pair in failed]) > TYPICAL
    return bool(is_no_nearer or is_far) or _chance(coarser, threshold) < IMPROBABLE


def is_hopeless(
    before: Sequence[Measurement],
    plain: Sequence[Measurement],
    after: Sequence[Measurement],
    threshold: float,
) -> bool:
    """Returns True if a switch mends nothing of what fails.

    Whatever its noise units are, which need not be known: all distances are as they
    were, or typically so much larger that `only_makes_noise` holds under larger units
    and the tensors fail under others.

    Args:
      before: measurements of a part without the switch.
      plain: the same by a program that rounds as that of `after` does, in any unit.
      after: measurements with the switch, in any unit.
      threshold: largest z that passes.
    """
    failed = {m.key: m.z for m in before if m.z > threshold}
    failing = [p for p in pairs(plain, after) if p.key in failed]
    if not failing:
        return False
    changes = np.array([pair.change for pair in failing])
    if np.abs(changes - 1).max() < INERT:
        return True
    typical = np.median(changes * [failed[pair.key] for pair in failing])
    return bool(np.median(changes) > NO_NEARER and typical > LARGER * threshold)


def pairs(before: Sequence[Measurement], after: Sequence[Measurement]) -> list[Pair]:
    """Returns the tensors that both measured as a distance."""
    with_switch = {m.key: m for m in after}
    both = [Pair(m, with_switch[m.key]) for m in before if m.key in with_switch]
    return [p for p in both if p.before.detectable and p.after.detectable]


def _chance(pairs: Sequence[Pair], threshold: float) -> float:
    """Returns how probable it is that tensors agree in finer digits by luck.

    One entry, rounded by `growth` units, falls within `threshold` units of where it was
    with the probability threshold / growth; more entries make it less probable.
    """
    agreeing = [
        pair
        for pair in pairs
        if pair.before.z <= threshold < pair.growth and not _keeps_digits(pair)
    ]
    return math.prod(threshold / pair.growth for pair in agreeing)


def _keeps_digits(pair: Pair) -> bool:
    """Returns True of the output of a layer that autocast leaves in float32."""
    layer = pair.before.tensor.rpartition("/")[2]
    return pair.before.quantity == "activations" and layer.startswith(IN_FLOAT32)
