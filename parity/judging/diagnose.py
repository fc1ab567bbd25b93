"""Turns "where" into "why": replays a diverging step under each known difference and
ranks those that explain it."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxnn.experiment.flags.config import Experiment
from parity.judging.measure import BROKEN, Measurement
from parity.semantics import SWITCHES
from parity.semantics.switch import GRADIENTS, RULES, UPDATE, Switch

PARTS = (RULES, GRADIENTS, UPDATE)
PART_OF = {
    **dict.fromkeys(
        ("params", "batch", "optimizer_step", "learning_rate", "loss_scale"), RULES
    ),
    **dict.fromkeys(
        ("activations", "loss", "batch_stats", "grads", "grad_norm", "skipped"),
        GRADIENTS,
    ),
    **dict.fromkeys(("moments", "updated", "unchanged"), UPDATE),
}
"""Quantity -> the part of a step that makes it."""

NEAREST = 3
STEPS = 3
"""Steps to choose between explanations by, the diverging one among them."""
PAIRED = 8
UNEQUAL = 1e12
"""What a broken equality counts as beside z."""

Measure = Callable[[str, int, tuple[Switch, ...]], Sequence[Measurement]]
"""(part, step, switches) -> the measurements of one part of a step, replayed under the
switches."""


class Explanation(NamedTuple):
    """A set of switches, tried on the diverging step.

    Attributes:
      switches: one or two.
      before: largest z among what they act on and what failed, without them.
      after: largest z of the whole step with them.
      explains: whether everything then passes.
      cost: the lower the better; see `_cost`. Of several that explain, over the
        following steps too.
    """

    switches: tuple[Switch, ...]
    before: float
    after: float
    explains: bool
    cost: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the switches, in the order of the catalogue."""
        return tuple(switch.name for switch in self.switches)


def diagnose(
    measure: Measure,
    steps: Sequence[int],
    experiment: Experiment,
    threshold: float,
    catalogue: Mapping[str, Switch] = SWITCHES,
) -> list[Explanation]:
    """Tries every switch that applies on the diverging step, then pairs; the best
    first.

    Where several explain it, the steps that follow choose between them.

    Args:
      measure: called once for each part and set of switches that act on it.
      steps: the diverging one, and recorded ones that follow it.
      experiment: as its flags have it.
      threshold: largest z that passes.
      catalogue: the switches to try.

    Returns:
      What explains the step, the most exact first; where nothing does, the nearest
      three.
    """
    trial = _Trial(functools.partial(_of_step, measure, steps[0]), threshold)
    failing = trial.failing(())
    candidates = [
        (switch,)
        for switch in catalogue.values()
        if switch.applies(experiment) and set(switch.parts) & failing
    ]
    singles = [trial.explanation(candidate) for candidate in candidates]
    if not any(single.explains for single in singles):
        places = list(catalogue)
        singles += [
            trial.explanation(
                tuple(sorted(pair, key=lambda switch: places.index(switch.name)))
            )
            for pair in _pairs(singles, trial.cost(()))
        ]
    explained = [single for single in singles if single.explains]
    for step in steps[1:] if len(explained) > 1 else ():
        trial = _Trial(functools.partial(_of_step, measure, step), threshold)
        explained = [
            single._replace(cost=single.cost + trial.cost(single.switches))
            for single in explained
        ]
    return sorted(explained or singles, key=lambda single: single.cost)[
        : None if explained else NEAREST
    ]


def _of_step(
    measure: Measure, step: int, part: str, switches: tuple[Switch, ...]
) -> Sequence[Measurement]:
    return measure(part, step, switches)


def _pairs(
    singles: Sequence[Explanation], cost_without: float
) -> Iterator[tuple[Switch, ...]]:
    """Pairs of what brought the step nearer, a switch's patches never twice on one
    place."""
    helpful = sorted(
        (single for single in singles if single.cost < cost_without),
        key=lambda single: single.cost,
    )
    for left, right in itertools.combinations(helpful[:PAIRED], 2):
        places = [
            (id(patch.holder), patch.name)
            for switch in (*left.switches, *right.switches)
            for patch in switch.patches
        ]
        if len(places) == len(set(places)):
            yield *left.switches, *right.switches


class _Trial:
    """Measures each part under each set of switches once."""

    def __init__(
        self,
        measure: Callable[[str, tuple[Switch, ...]], Sequence[Measurement]],
        threshold: float,
    ):
        self._measure, self._threshold = measure, threshold
        self._known: dict[tuple[str, tuple[str, ...]], Sequence[Measurement]] = {}

    def measurements(self, switches: tuple[Switch, ...]) -> list[Measurement]:
        """Of the whole step; a part that no switch acts on is measured without any."""
        return [
            m
            for part in PARTS
            for m in self._part(part, tuple(s for s in switches if part in s.parts))
        ]

    def _part(self, part: str, switches: tuple[Switch, ...]) -> Sequence[Measurement]:
        key = (part, tuple(switch.name for switch in switches))
        if key not in self._known:
            self._known[key] = self._measure(part, switches)
        return self._known[key]

    def failing(self, switches: tuple[Switch, ...]) -> set[str]:
        """The parts in which something fails."""
        return {
            PART_OF[m.quantity]
            for m in self.measurements(switches)
            if m.z > self._threshold
        }

    def cost(self, switches: tuple[Switch, ...]) -> float:
        """How badly the step fits; see `_cost`."""
        return _cost(self.measurements(switches), self._threshold)

    def explanation(self, switches: tuple[Switch, ...]) -> Explanation:
        """What the switches make of the step."""
        after, parts = (
            self.measurements(switches),
            {part for switch in switches for part in switch.parts},
        )
        before = [m.z for m in self.measurements(()) if PART_OF[m.quantity] in parts]
        return Explanation(
            switches,
            max(before),
            max(m.z for m in after),
            not self.failing(switches),
            _cost(after, self._threshold),
        )


def _cost(measurements: Sequence[Measurement], threshold: float) -> float:
    """A step that fails costs the logarithms of its excess; one that passes, far less,
    its negative log-likelihood.

    Of two explanations that pass, the one that predicts more sharply is the likelier:
    under Gaussian rounding of size u a distance z u has the likelihood exp(-z^2 / 2) /
    u.
    """
    excess = sum(
        math.log(min(m.z, UNEQUAL) / threshold) for m in measurements if m.z > threshold
    )
    sharpness = sum(
        math.log(m.detectable) + m.z**2 / 2
        for m in measurements
        if m.detectable and m.z <= threshold
    )
    return math.inf if math.isnan(excess) else excess * 1e9 + sharpness


def as_json(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """What verdict.json holds of a diagnosis."""
    return [
        {
            "name": " + ".join(explanation.names),
            "explanation": "; ".join(
                switch.explanation for switch in explanation.switches
            ),
            "reference": "; ".join(switch.reference for switch in explanation.switches),
            "before": explanation.before,
            "after": explanation.after,
            "explained": explanation.explains,
        }
        for explanation in explanations
    ]


def sentence(explanations: Sequence[Explanation]) -> str:
    """The diagnosis in a line, the three nearest where nothing explains."""
    if not explanations:
        return "no known difference applies to what failed"
    if not explanations[0].explains:
        nearest = ", ".join(
            f"{' + '.join(e.names)} ({_z(e.before)} -> {_z(e.after)})"
            for e in explanations
        )
        return f"no known difference explains it; nearest: {nearest}"
    best, *others = explanations
    references = "; ".join(switch.reference for switch in best.switches)
    more = (
        f"; so would {', '.join(' + '.join(e.names) for e in others[:NEAREST])}"
        if others
        else ""
    )
    return (
        f"explained by {' + '.join(best.names)} (z {_z(best.before)} -> "
        f"{_z(best.after)}): "
        + "; ".join(switch.explanation for switch in best.switches)
        + f" [{references}]{more}"
    )


def _z(z: float) -> str:
    return "unequal" if z >= BROKEN else f"{z:.1e}" if z >= 100 else f"{z:.2f}"
