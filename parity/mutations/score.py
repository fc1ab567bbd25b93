"""Scores the judge: plants every fault in a base, judges each run, notes the outcome.

A fault is expected where it first moves a tensor by more than the judge can see. To
find out where, its switch is applied to jaxnn's own recording and the result is judged.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags.config import Experiment
from parity.judging.guesses import explain
from parity.judging.measure import Measurement, first_failed
from parity.judging.replays import Replays, Switches
from parity.judging.rounds import THOROUGH
from parity.judging.step import Judge, order
from parity.mutations.bases import ONLY
from parity.mutations.bench import CLEAN, JAX, Bench, record
from parity.mutations.plan import Mutant, mutants
from parity.semantics import SWITCHES
from parity.stacks import initial_params


class FaultOutcome(NamedTuple):
    """Outcome of one planted fault.

    Attributes:
      base: name of the base.
      precision: precision of the run.
      fault: what was planted; several names are joined by "+".
      expected: where the fault, applied to jaxnn's own run, first moves a tensor by
        more than the judge can see, or None if nowhere.
      largest: largest z by which it moves a tensor there.
      found: first divergence that the judge reports, or None at parity.
      explanation: switches that the judge names first.
      complaint: why the run could not be judged; empty if it could.
    """

    base: str
    precision: str
    fault: str
    expected: Measurement | None
    largest: float
    found: Measurement | None
    explanation: tuple[str, ...]
    complaint: str = ""

    @property
    def caught(self) -> bool:
        """True if the judge reports a divergence."""
        return self.found is not None

    @property
    def located(self) -> bool:
        """True if the judge names the step and quantity where the fault first shows."""
        return is_located(self.found, self.expected)

    @property
    def explained(self) -> bool:
        """True if the judge's first explanation is what was planted."""
        return self.explanation == tuple(self.fault.split("+"))


def is_located(found: Measurement | None, expected: Measurement | None) -> bool:
    """Returns True if two measurements are of one quantity of one step."""
    # The tensor may differ: where several fail, rounding can decide which is first.
    return bool(
        found
        and expected
        and found.step == expected.step
        and found.quantity == expected.quantity
    )


def score(
    base: str,
    experiment: Experiment,
    folder: pathlib.Path,
    only: Sequence[str],
    threshold: float,
) -> Iterator[FaultOutcome]:
    """Plants every fault that an experiment can have and yields the outcomes.

    The clean run's outcome comes first.

    Args:
      base: name of the base.
      experiment: flags and precision of the base.
      folder: folder for the runs.
      only: names of the faults to plant; empty for all.
      threshold: largest z that passes.
    """
    bench = set_up(base, experiment, folder, threshold)
    known = set(only or SWITCHES) & set(ONLY.get(base, SWITCHES))
    planted = [mutant for mutant in mutants(experiment) if set(mutant.switches) & known]
    statuses = record(bench, planted)

    # A mutant without fault and with unchanged flags is a fault that DeepSpeed has in
    # this base anyway. Its clean run then has it too and is no test of false alarms.
    has_own_fault = any(
        mutant.experiment == experiment and not mutant.fault for mutant in planted
    )
    if not has_own_fault:
        yield judge_clean(bench)
    for mutant, status in zip(planted, statuses[1:]):
        yield judge_mutant(bench, mutant, status)


def set_up(
    base: str, experiment: Experiment, folder: pathlib.Path, threshold: float
) -> Bench:
    """Returns a base to record; the arguments are those of `score`."""
    data = load_dataset(experiment)
    initial = initial_params(experiment, data)
    replays = Replays(experiment, data)
    return Bench(base, experiment, data, initial, folder, replays, threshold)


def judge_clean(bench: Bench) -> FaultOutcome:
    """Judges the clean run, in which nothing should be found."""
    found = first_divergence(bench, bench.judge(CLEAN), CLEAN)
    return FaultOutcome(
        bench.base, bench.experiment.precision, CLEAN, None, 0.0, found, ()
    )


def judge_mutant(bench: Bench, mutant: Mutant, status: int) -> FaultOutcome:
    """Judges a run with a fault.

    Args:
      bench: recorded base.
      mutant: what was planted.
      status: exit code of the run.
    """
    known = bench.base, bench.experiment.precision, mutant.name
    num_steps = bench.num_recorded(mutant.name)
    if status and num_steps <= mutant.first_step:
        return FaultOutcome(*known, None, 0.0, None, (), f"exit code {status}")

    switches = tuple(SWITCHES[name] for name in mutant.switches)
    expected, largest = expectation(bench, switches, mutant.steps)
    judge = bench.judge(mutant.name)
    found = first_divergence(bench, judge, mutant.name)
    if found is None:
        return FaultOutcome(*known, expected, largest, None, ())

    explanations = explain(judge, found, num_steps, bench.replays, bench.threshold)
    best = explanations[0].names if explanations and explanations[0].explains else ()
    # In the order of the catalogue, as `Mutant.switches`.
    names = tuple(sorted(best, key=list(SWITCHES).index))
    return FaultOutcome(*known, expected, largest, found, names)


def first_divergence(bench: Bench, judge: Judge, name: str) -> Measurement | None:
    """Returns the first failed measurement of a run, or None at parity.

    Args:
      bench: recorded base.
      judge: judge of the run.
      name: name of the run.
    """
    trace = bench.trace(name)
    for number in range(len(trace)):
        failed = first_failed(judge.step(number), bench.threshold, order(trace))
        # Later steps are not judged, as the first divergence is all that counts.
        if failed:
            return failed
    return None


def expectation(
    bench: Bench, switches: Switches, steps: Iterable[int]
) -> tuple[Measurement | None, float]:
    """Applies a fault to jaxnn's own recording and judges the result.

    Args:
      bench: recorded base.
      switches: what reproduces the fault.
      steps: indices of the steps that it acts on.

    Returns:
      The first measurement that fails, or None, and the largest z up to there.
    """
    parts = dict.fromkeys(part for switch in switches for part in switch.parts)
    trace = bench.trace(JAX)
    clean = bench.judge(JAX)
    largest = 0.0

    for number in steps:
        # Each step is replayed from the recorded state, so that one step can be
        # replaced without the others.
        enacted = Enacted(trace, number, clean.enacted(number, switches))
        judge = Judge(bench.replays, enacted, bench.initial, bench.threshold, THOROUGH)
        measured = [m for part in parts for m in judge.part(part, number)]
        largest = max(largest, *(m.z for m in measured))
        failed = first_failed(measured, bench.threshold, order(trace))
        if failed:
            return failed, largest
    return None, largest


@dataclasses.dataclass(frozen=True)
class Enacted:
    """A recording with one step replaced; has what a `Judge` needs of a `Reader`.

    Attributes:
      trace: recording.
      number: number of the replaced step.
      step: tensors of that step.
    """

    trace: Reader
    number: int
    step: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.trace)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Returns the tensors of one step."""
        return self.step if number == self.number else self.trace.read(number)
