"""An explanation of a divergence: known differences under which a step was replayed."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from parity.judging.measure import spell_z, z_as_json
from parity.semantics.switch import Switch

TOLD_APART = math.log(1e3)
"""Difference of two costs from which on one explanation is called the likelier."""
NEAREST = 3
"""Number of explanations to name beside the best, or where nothing explains."""


class Explanation(NamedTuple):
    """A set of switches, tried on the diverging step.

    Attributes:
      switches: one or two.
      before: largest z, without the switches, of the parts that they act on.
      after: largest z of the whole step, with them.
      explains: everything passes with them.
      cost: the lower the better, see `diagnose.cost`. Of several that explain, summed
        over the following steps too.
      is_measured: found by measuring the recording, not by replaying it; then it is
        true as it stands, even where it does not explain the whole.
    """

    switches: tuple[Switch, ...]
    before: float
    after: float
    explains: bool
    cost: float
    is_measured: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the switches, in the order of the catalogue."""
        return tuple(switch.name for switch in self.switches)

    @property
    def label(self) -> str:
        """The names in one string."""
        return " + ".join(self.names)

    @property
    def text(self) -> str:
        """What the recording stack did."""
        return "; ".join(switch.explanation for switch in self.switches)

    @property
    def reference(self) -> str:
        """Where the differences are documented."""
        parts = (p for switch in self.switches for p in switch.reference.split("; "))
        return "; ".join(dict.fromkeys(parts))

    def as_json(self) -> dict[str, Any]:
        """Returns what verdict.json holds of an explanation."""
        return {
            "name": self.label,
            "explanation": self.text,
            "reference": self.reference,
            "before": z_as_json(self.before),
            "after": z_as_json(self.after),
            "explained": self.explains,
        }


def sentence(explanations: Sequence[Explanation]) -> str:
    """Returns a diagnosis in one line, best first; where nothing explains, the nearest.

    Args:
      explanations: as `diagnose.diagnose` returns them.
    """
    if not explanations:
        return "no known difference explains it, or comes near"
    best, *others = explanations
    if best.is_measured:
        return _measured(best)
    if not best.explains:
        nearest = ", ".join(f"{e.label} ({_change(e)})" for e in explanations)
        return f"no known difference explains it; nearest: {nearest}"
    return (
        f"explained by {best.label} (z {_change(best)}): {best.text} "
        f"[{best.reference}]{_others(best, others)}"
    )


def as_likely(best: Explanation, other: Explanation) -> bool:
    """Returns True if the recording does not tell two explanations apart."""
    return other.cost - best.cost < TOLD_APART


def _others(best: Explanation, others: Sequence[Explanation]) -> str:
    """Returns what else explains it: what is as likely, and what is less so."""
    like = ", ".join(e.label for e in others if as_likely(best, e))
    less = [e.label for e in others if not as_likely(best, e)]
    twins = f"; {like} would as well, and this recording cannot tell which"
    worse = f"; so would, less well, {', '.join(less[:NEAREST])}"
    return (twins if like else "") + (worse if less else "")


def _measured(best: Explanation) -> str:
    verb = "explained by" if best.explains else "part of it is"
    rest = "" if best.explains else "; no known difference explains the rest"
    return f"{verb} {best.label}: {best.text} [{best.reference}]{rest}"


def _change(explanation: Explanation) -> str:
    return f"{spell_z(explanation.before)} -> {spell_z(explanation.after)}"
