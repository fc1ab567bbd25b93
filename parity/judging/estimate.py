"""What a glance tells of a guess: distances in the noise units of the step without it.

The guess's own units take two more programs. Beside the size of what was recorded they
are seldom eight times as large, and where they are, a tensor agrees with the replay
without the guess by luck alone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from parity.judging.coarser import INERT, LARGER, Pair, pairs
from parity.judging.measure import Measurement
from parity.judging.rounds import CLEARLY
from parity.quantities import Key

SURELY = LARGER * CLEARLY
"""Times the threshold: what is farther in the units of the step without a guess fails
in the guess's own units as well."""


class Estimate(NamedTuple):
    """A step under a guess, glanced at.

    Attributes:
      without: its measurements without the guess, in noise units.
      plain: the same by a program that rounds as that of `glanced` does, in any unit.
      glanced: measurements under the guess, in the unit of `plain`.
      times_larger: size of a recorded tensor over that of its replay without the guess.
    """

    without: Sequence[Measurement]
    plain: Sequence[Measurement]
    glanced: Sequence[Measurement]
    times_larger: Mapping[Key, float]

    @property
    def is_inert(self) -> bool:
        """True if the guess moves nothing that was glanced at."""
        return all(map(is_inert, pairs(self.plain, self.glanced)))

    @property
    def measurements(self) -> list[Measurement]:
        """`without` with the z of what was glanced at."""
        known = {m.key: m for m in self.seen}
        return [known.get(m.key, m) for m in self.without]

    @property
    def seen(self) -> list[Measurement]:
        """What was glanced at, in the units of `without`; what has none there, as an
        overflow lost it, is left out."""
        known = {m.key: m for m in self.without}
        return [_in_units_of(known[m.key], m) for m in self.glanced if m.key in known]

    def rules_out(self, decisive: Collection[str], threshold: float) -> bool:
        """Returns True if something fails under the guess whatever its noise units.

        Args:
          decisive: quantities that no kink or jump of the network moves.
          threshold: largest z that passes.
        """
        both = [p for p in pairs(self.plain, self.glanced) if p.key[0] in decisive]
        # In other digits another unit holds.
        if any(pair.growth > LARGER for pair in both):
            return False
        far = {m.key for m in self.seen if m.z > self._surely(m.key) * threshold}
        failed = {m.key for m in self.without if m.z > threshold}
        return any(p.key in far or (p.key in failed and is_inert(p)) for p in both)

    def _surely(self, key: Key) -> float:
        """Returns SURELY for a tensor; a guess that makes it larger makes its unit so,
        and only one that makes it as large as it was recorded can be true."""
        return SURELY * max(1.0, self.times_larger.get(key, 1.0))


def is_inert(pair: Pair) -> bool:
    """Returns True if the guess does not move a tensor."""
    return abs(pair.change - 1) < INERT


def _in_units_of(m: Measurement, glanced: Measurement) -> Measurement:
    if not (m.detectable and glanced.detectable):
        return glanced
    return m._replace(z=glanced.z * glanced.detectable / m.detectable)
