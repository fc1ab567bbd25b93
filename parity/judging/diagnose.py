"""Turns "where" into "why": replays a diverging step under each known difference.

Single switches first, then pairs of those that brought the step nearer. Where several
explain the step, the steps that follow choose between them.
"""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.time_left import watched
from parity.judging.coarser import only_makes_noise
from parity.judging.explanation import NEAREST, Explanation
from parity.judging.measure import Measurement
from parity.judging.replays import Switches
from parity.quantities import PARTS, QUANTITIES, RULES
from parity.semantics import SWITCHES
from parity.semantics.switch import Switch

STEPS = 3
"""Steps to test explanations by, the diverging one included; rules take them all."""
PAIRED = 8
"""How many of the most helpful switches are tried in pairs."""
MUCH = 0.1
"""Share of a z that has not been mended. Under what explains a thousand units the sum
of another order may still be a dozen off."""
NEAR = 0.5
"""Share of the first failed tensor's z below which a cause comes near."""
TIE = math.log(20)
"""Difference of two costs up to which neither explanation is preferred: a likelihood
ratio of 20, from which on evidence is usually called strong."""
EQUALITY_WORTH = 1e12
"""z that a broken equality counts as, beside measured distances."""

Measure = Callable[[str, int, Switches], Sequence[Measurement]]
"""(part, step, switches) -> the measurements of one part of a step, replayed under the
switches."""


def diagnose(
    measure: Measure,
    steps: Sequence[int],
    experiment: Experiment,
    threshold: float,
    catalogue: Mapping[str, Switch] = SWITCHES,
    note: Callable[[str], None] = print,
    first: Measurement | None = None,
) -> list[Explanation]:
    """Tries every switch that applies on the diverging step, then pairs.

    Args:
      measure: called at most once for each part, step and set of switches.
      steps: the diverging step, and all recorded ones that follow it.
      experiment: experiment as its flags have it.
      threshold: largest z that passes.
      catalogue: name -> switch, those to try.
      note: takes a line on each switch that could not be tried.
      first: first measurement of the diverging step that failed, if it is known: what
        leaves it half as far off or farther is not called near.

    Returns:
      What explains the step, the most exact first; where nothing does, the nearest
      three of those that bring it nearer.
    """
    trials = functools.cache(lambda step: _Trial(measure, step, threshold))
    trial = trials(steps[0])
    later = [trials(step) for step in steps[1:STEPS]]
    rules = [trials(step) for step in steps[STEPS:]]

    def tried(candidates: Iterable[Switches]) -> Iterator[Explanation]:
        for one in _tried(trial, candidates, note):
            is_wrong = one.explains and _is_refuted(trial, later, rules, one.switches)
            yield one._replace(explains=False, cost=math.inf) if is_wrong else one

    cost_without = trial.cost(())
    candidates = _candidates(catalogue, experiment, trial.failing(()))
    singles = list(tried((switch,) for switch in candidates))
    if not any(single.explains for single in singles):
        pairs = _pairs(singles, cost_without)
        singles += list(tried(_sorted_by(catalogue, pair) for pair in pairs))
    explained = [single for single in singles if single.explains]
    if not explained:
        nearer = [single for single in singles if single.cost < cost_without]
        if first:
            nearer = [one for one in nearer if trial.is_near(one.switches, first)]
        return sorted(nearer, key=_by_cost)[:NEAREST]
    if len(explained) > 1:
        for following in later:
            explained = _with_costs_of(following, explained)
    return _ranked(explained, catalogue)


def _ranked(
    explained: Sequence[Explanation], catalogue: Mapping[str, Switch]
) -> list[Explanation]:
    """Returns explanations by cost; those that tie with the best as the catalogue.

    Among equals the order of the catalogue, which has what released software does
    before what somebody might do by hand, is a better reason than a rounding error.
    """
    least = min(explanation.cost for explanation in explained)

    def rank(one: Explanation) -> tuple[float, list[int]]:
        excess = one.cost - least
        return excess if excess >= TIE else 0, _places(catalogue, one.switches)

    return sorted(explained, key=rank)


def _is_refuted(
    first: "_Trial",
    later: Sequence["_Trial"],
    rules: Sequence["_Trial"],
    switches: Switches,
) -> bool:
    """Returns True if what switches mend at the first step fails later all the same.

    What passes later without them refutes nothing: some faults act once.

    Args:
      first: the diverging step.
      later: steps to ask about everything.
      rules: steps to ask about the rules alone, which need no replay.
      switches: explain the diverging step.
    """
    mended = first.failed(()) - first.failed(switches)
    of_rules = {name for name in mended if QUANTITIES[name].part == RULES}
    return any(
        step.still_failing(switches, names)
        for steps, names in ((later, mended), (rules, of_rules))
        for step in steps
    )


def _candidates(
    catalogue: Mapping[str, Switch], experiment: Experiment, failing: set[str]
) -> Iterator[Switch]:
    """Yields the switches that apply and act on a part that fails."""
    for switch in catalogue.values():
        if switch.applies(experiment) and failing.intersection(switch.parts):
            yield switch


def _tried(
    trial: "_Trial",
    candidates: Iterable[Switches],
    note: Callable[[str], None],
) -> Iterator[Explanation]:
    """Yields what each set of switches makes of the step.

    A switch is a guess: one that fails on this experiment, in whatever way, must not
    take the verdict with it.
    """
    for switches in watched("trying cause", list(candidates)):
        try:
            yield trial.explanation(switches)
        except Exception as error:
            label = " + ".join(switch.name for switch in switches)
            note(f"{label} could not be tried: {error or type(error).__name__}")


def _pairs(singles: Sequence[Explanation], cost_without: float) -> Iterator[Switches]:
    """Yields pairs of what brought the step nearer, never two patches of one place."""
    helpful = [single for single in singles if single.cost < cost_without]
    best = sorted(helpful, key=_by_cost)[:PAIRED]
    for left, right in itertools.combinations(best, 2):
        switches = (*left.switches, *right.switches)
        places = [
            (id(patch.holder), patch.name)
            for switch in switches
            for patch in switch.patches
        ]
        if len(places) == len(set(places)):
            yield switches


def _sorted_by(catalogue: Mapping[str, Switch], switches: Switches) -> Switches:
    return tuple(sorted(switches, key=lambda switch: _places(catalogue, (switch,))))


def _places(catalogue: Mapping[str, Switch], switches: Switches) -> list[int]:
    names = list(catalogue)
    return [names.index(switch.name) for switch in switches]


def _with_costs_of(
    trial: "_Trial", explanations: Sequence[Explanation]
) -> list[Explanation]:
    """Returns the explanations with the cost of one more step added."""
    return [
        explanation._replace(cost=explanation.cost + trial.cost(explanation.switches))
        for explanation in explanations
    ]


def _by_cost(explanation: Explanation) -> float:
    return explanation.cost


class _Trial:
    """One step, each part of it measured once under each set of switches."""

    def __init__(self, measure: Measure, step: int, threshold: float):
        self._measure = measure
        self._step = step
        self._threshold = threshold
        self._known: dict[tuple[str, tuple[str, ...]], Sequence[Measurement]] = {}

    def measurements(self, switches: Switches) -> list[Measurement]:
        """Returns the measurements of the whole step.

        A part that no switch acts on is measured without any, and so only once for all
        switches.
        """
        return [m for part in PARTS for m in self._part(part, switches)]

    def _part(self, part: str, switches: Switches) -> Sequence[Measurement]:
        acting = tuple(switch for switch in switches if part in switch.parts)
        key = (part, tuple(switch.name for switch in acting))
        if key not in self._known:
            self._known[key] = self._measure(part, self._step, acting)
        return self._known[key]

    def failing(self, switches: Switches) -> set[str]:
        """Returns the parts in which something fails."""
        return {QUANTITIES[name].part for name in self.failed(switches)}

    def failed(self, switches: Switches) -> set[str]:
        """Returns the quantities that fail."""
        return {
            m.quantity for m in self.measurements(switches) if m.z > self._threshold
        }

    def still_failing(self, switches: Switches, names: Collection[str]) -> set[str]:
        """Returns which of some quantities fail with switches much as without them."""
        without = {name: self._worst(name, ()) for name in names}
        failing = {name: z for name, z in without.items() if z > self._threshold}
        return {
            name
            for name, z in failing.items()
            if self._worst(name, switches) > max(self._threshold, MUCH * z)
        }

    def _worst(self, name: str, switches: Switches) -> float:
        part = self._part(QUANTITIES[name].part, switches)
        found = (m.z for m in part if m.quantity == name)
        return min(max(found, default=0.0), EQUALITY_WORTH)

    def is_near(self, switches: Switches, first: Measurement) -> bool:
        """Returns True if switches bring the first failed tensor much nearer."""
        known = [m.z for m in self.measurements(()) if m.key == first.key]
        after = [m.z for m in self.measurements(switches) if m.key == first.key]
        return max(after, default=math.inf) < NEAR * max(known, default=0.0)

    def cost(self, switches: Switches) -> float:
        """Returns how badly the step fits under the switches; see `cost`."""
        return cost(self.measurements(switches), self._threshold)

    def explanation(self, switches: Switches) -> Explanation:
        """Returns what the switches make of the step."""
        without = self.measurements(())
        parts = {part for switch in switches for part in switch.parts}
        after = self.measurements(switches)
        is_noise = only_makes_noise(without, after, self._threshold)
        return Explanation(
            switches=switches,
            before=max(m.z for m in without if m.definition.part in parts),
            after=max(m.z for m in after),
            explains=not (self.failing(switches) or is_noise),
            cost=math.inf if is_noise else cost(after, self._threshold),
        )


def cost(measurements: Sequence[Measurement], threshold: float) -> float:
    """Returns how badly a step fits: the lower, the likelier the explanation.

    What fails costs the logarithm of its excess. What passes costs its negative
    log-likelihood, which counts far less: under Gaussian rounding of size u a distance
    of z u has the likelihood exp(-z^2 / 2) / u, so of two explanations that pass, the
    one that predicts more sharply is preferred.

    Args:
      measurements: measurements of the whole step.
      threshold: largest z that passes.
    """
    excess = sum(
        math.log(min(m.z, EQUALITY_WORTH) / threshold)
        for m in measurements
        if m.z > threshold
    )
    sharpness = sum(
        math.log(m.detectable) + m.z**2 / 2
        for m in measurements
        if m.detectable and m.z <= threshold
    )
    if math.isnan(excess):
        return math.inf
    # Any excess outweighs all sharpness.
    return excess * 1e9 + sharpness
