"""Measures tensors with as few draws of noise as settle the verdict.

A draw is a replay of the whole step, so most of the judge's time goes into draws. They
are made in rounds of growing size, and only while something still fails.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from parity.judging.measure import Measurement
from parity.noise import DRAWS, FEW_DRAWS, MORE_DRAWS
from parity.quantities import ORDER

THOROUGH = (FEW_DRAWS, DRAWS, MORE_DRAWS)
IN_ULPS = (0,)
"""Without a draw the unit is one ulp, the smallest there is."""
ULPS_FIRST = (*IN_ULPS, *THOROUGH)
"""Numbers of draws to measure with."""

WORTH_A_CLOSE_LOOK = 1000.0
"""What fails by more than this z, where one step has diverged already, is not measured
with many draws."""

CLEARLY = 2.0
"""Times the threshold: without a kink more draws do not double a unit."""

Units = Mapping[str, float]
"""Tensor name -> noise unit."""


class Rounds(NamedTuple):
    """How often to measure.

    Attributes:
      draws: numbers of draws, one after the other until everything passes.
      threshold: largest z that passes.
      close_below: what fails by more than this z is not measured with MORE_DRAWS.
      are_alike: no kink makes one draw larger than another, so that what fails clearly
        fails with any number of them.
    """

    draws: Sequence[int]
    threshold: float
    close_below: float = math.inf
    are_alike: bool = False

    def without_kinks(self) -> "Rounds":
        """Returns the rounds for a network whose draws are alike."""
        return self._replace(are_alike=True)

    def run(
        self,
        units: Callable[[int], Units],
        compare: Callable[[Units, bool], Iterator[Measurement]],
    ) -> list[Measurement]:
        """Returns the measurements of the round that settles each of them.

        Args:
          units: number of draws -> noise units.
          compare: (noise units, closely) -> measurements, always in the same order.
        """
        measurements: list[Measurement] = []
        for draws in self.draws:
            closely = draws == MORE_DRAWS
            if closely and not self._deserves_a_close_look(measurements):
                break
            again = list(compare(units(draws) if draws else {}, closely))
            # A close look replaces only what failed; an ordinary round replaces all.
            kept = measurements if closely else again
            measurements = [
                new if old.z > self.threshold else old for old, new in zip(kept, again)
            ]
            if self._settled(measurements, draws):
                break
        return measurements

    def _deserves_a_close_look(self, measurements: Sequence[Measurement]) -> bool:
        """Returns True if something fails, and by little enough to be noise after all.

        No verdict rests on a lucky few draws: what fails with 5 gets 64.
        """
        worst = max((m.z for m in measurements), default=math.inf)
        if not self.threshold < worst <= self.close_below:
            return False
        return not self.are_alike or self._is_in_doubt(measurements)

    def _is_in_doubt(self, measurements: Sequence[Measurement]) -> bool:
        """Returns True if more draws, alike, may change what the step is said to do.

        The step that diverges first is to name its first tensor, which nothing can be
        that fails behind a quantity that fails clearly.
        """
        clear = CLEARLY * self.threshold
        clearly = [ORDER[m.quantity] for m in measurements if m.z > clear]
        if math.isfinite(self.close_below):
            return not clearly
        first = min(clearly, default=len(ORDER))
        return any(
            self.threshold < m.z <= clear and ORDER[m.quantity] <= first
            for m in measurements
        )

    def _settled(self, measurements: Sequence[Measurement], draws: int) -> bool:
        """Returns True if everything passes, and would with more draws too.

        Over 5 draws the root mean square is at least sqrt(2/5) of that over the first
        2, so what passes by that much with 2 passes with 5.
        """
        share = math.sqrt(draws / DRAWS) if 0 < draws < DRAWS else 1.0
        return all(m.z <= self.threshold * share for m in measurements)


def close_below(found: Sequence[Measurement], threshold: float) -> float:
    """Returns what is still worth a close look in the steps that follow.

    A verdict rests on the first step that diverges, and that one is always looked at
    closely: a kink can move a gradient by any number of units.

    Args:
      found: measurements of all steps before.
      threshold: largest z that passes.
    """
    has_diverged = any(m.z > threshold for m in found)
    return WORTH_A_CLOSE_LOOK if has_diverged else math.inf
