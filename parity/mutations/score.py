"""Records a base with every fault that it can hold, judges each, and says what was
caught, located and explained."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from parity.judging import measure
from parity.judging.measure import Measurement
from parity.judging.recording import explain
from parity.judging.step import THOROUGH, Judge, Replays, order
from parity.mutations.bases import ONLY
from parity.mutations.plan import STEPS, Mutant, mutants
from parity.semantics import SWITCHES
from parity.stacks import INITIAL_PARAMS, initial_params

PLANTED = "torch_ref.planted"
CLEAN, JAX = "clean", "jax"
"""Names of the two runs without a fault."""


class FaultOutcome(NamedTuple):
    """What became of one planted fault.

    Attributes:
      base, precision, fault: what was planted where.
      expected: where the fault, applied to jaxnn's own run, first moves a tensor by
        more than it takes to be seen; None: nowhere.
      largest: the largest z by which it moves one.
      found: the first divergence that the judge reports; None: it reports parity.
      explanation: the switches that it names first.
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
        """Whether the judge reports a divergence."""
        return self.found is not None

    @property
    def located(self) -> bool:
        """Whether it names the step and the quantity where the fault first shows."""
        return bool(
            self.found
            and self.expected
            and self.found.step == self.expected.step
            and self.found.quantity == self.expected.quantity
        )

    @property
    def explained(self) -> bool:
        """Whether it names what was planted first."""
        return self.explanation == tuple(self.fault.split("+"))


class Bench(NamedTuple):
    """One base in one precision, recorded.

    Attributes:
      base: its name.
      experiment: of the base.
      data: its data set.
      initial: flat parameters that every run starts from.
      folder: of the runs, each under its fault's name.
      replays: shared by all judgements.
      threshold: largest z that passes.
    """

    base: str
    experiment: Experiment
    data: Dataset
    initial: dict[str, np.ndarray]
    folder: pathlib.Path
    replays: Replays
    threshold: float

    def judge(self, name: str) -> Judge:
        """The judge of one run."""
        return Judge(
            self.replays, self.trace(name), self.initial, self.threshold, THOROUGH
        )

    def trace(self, name: str) -> Reader:
        """What one run recorded."""
        return Reader(self.folder / name / "trace")


def score(
    base: str,
    experiment: Experiment,
    folder: pathlib.Path,
    only: Sequence[str],
    threshold: float,
) -> Iterator[FaultOutcome]:
    """Plants every fault that an experiment can hold; yields the clean run's outcome
    first.

    Args:
      base: name of the experiment.
      experiment: its flags and precision.
      folder: for the runs.
      only: names of the faults to plant; empty: all.
      threshold: largest z that passes.
    """
    data = load_dataset(experiment)
    initial = initial_params(experiment, data)
    bench = Bench(
        base, experiment, data, initial, folder, Replays(experiment, data), threshold
    )
    known = set(only or SWITCHES) & set(ONLY.get(base, SWITCHES))
    planted = [mutant for mutant in mutants(experiment) if set(mutant.switches) & known]
    statuses = record(bench, planted)
    if not any(
        mutant.experiment == experiment and not mutant.fault for mutant in planted
    ):
        yield judge_clean(bench)
    for mutant, status in zip(planted, statuses[1:]):
        yield judge_mutant(bench, mutant, status)


def record(bench: Bench, planted: Sequence[Mutant]) -> list[int]:
    """Runs jaxnn, and beside it the clean experiment and each mutant in one process of
    the torch side.

    Returns:
      The exit codes of the torch side's runs.

    Raises:
      UserError: jaxnn, the torch side or its clean run failed; its last line is shown.
    """
    bench.folder.mkdir(parents=True)
    artifacts.write_params(bench.folder / INITIAL_PARAMS, bench.initial)
    clean = Mutant((), "", bench.experiment, 0)
    jobs = bench.folder / "jobs.json"
    jobs.write_text(
        json.dumps(
            [job(bench, mutant, mutant.name or CLEAN) for mutant in (clean, *planted)]
        )
    )
    commands = {
        PLANTED: [f"--jobs={jobs}"],
        "jaxnn.train": job(bench, clean, JAX)["arguments"],
    }
    running = {
        module: _start(module, arguments, bench.folder)
        for module, arguments in commands.items()
    }
    codes = {module: process.wait() for module, process in running.items()}
    finished = jobs.with_suffix(".done.json")
    statuses = (
        json.loads(finished.read_text()) if finished.exists() else [codes[PLANTED]]
    )
    for module, code in ((PLANTED, statuses[0]), ("jaxnn.train", codes["jaxnn.train"])):
        if code:
            log = bench.folder / f"{module}.log"
            raise UserError(
                f"cannot judge: {module} failed with exit code {code}: "
                f"{' '.join(log.read_text().strip().splitlines()[-1:])}; see {log}"
            )
    return statuses


def _start(
    module: str, arguments: Sequence[str], folder: pathlib.Path
) -> subprocess.Popen:
    with (folder / f"{module}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def job(bench: Bench, mutant: Mutant, name: str) -> dict[str, Any]:
    """A run of the torch side, as `torch_ref.planted --jobs` takes it."""
    flagfile = bench.folder / f"{name}.flags"
    flagfile.write_text(options.to_flagfile(mutant.experiment.replace(max_steps=STEPS)))
    arguments = [
        f"--flagfile={flagfile}",
        f"--workdir={bench.folder / name}",
        "--noplots",
        "--record=full",
        f"--record_steps={STEPS}",
        f"--init_params={bench.folder / 'initial.safetensors'}",
    ]
    return {
        "fault": mutant.fault,
        "first_step": mutant.first_step,
        "arguments": arguments,
    }


def judge_clean(bench: Bench) -> FaultOutcome:
    """The clean run must be judged at parity."""
    found = first_divergence(bench, bench.judge(CLEAN), CLEAN)
    return FaultOutcome(
        bench.base, bench.experiment.precision, CLEAN, None, 0.0, found, ()
    )


def judge_mutant(bench: Bench, mutant: Mutant, status: int) -> FaultOutcome:
    """Judges one run with a fault, and the clean run under the fault's switch for what
    to expect."""
    known = bench.base, bench.experiment.precision, mutant.name
    if status and steps_recorded(bench, mutant.name) <= mutant.first_step:
        return FaultOutcome(*known, None, 0.0, None, (), f"exit code {status}")
    expected, largest = expectation(bench, mutant)
    judge = bench.judge(mutant.name)
    found = first_divergence(bench, judge, mutant.name)
    if found is None:
        return FaultOutcome(*known, expected, largest, None, ())
    explanations = explain(
        judge,
        found.step,
        steps_recorded(bench, mutant.name),
        bench.replays,
        bench.threshold,
    )
    best = explanations[0].names if explanations and explanations[0].explains else ()
    return FaultOutcome(
        *known, expected, largest, found, tuple(sorted(best, key=list(SWITCHES).index))
    )


def steps_recorded(bench: Bench, name: str) -> int:
    """Fewer than all where a fault made training diverge, which ends a run."""
    return (
        len(bench.trace(name))
        if (bench.folder / name / "trace" / "meta.json").exists()
        else 0
    )


def first_divergence(bench: Bench, judge: Judge, name: str) -> Measurement | None:
    """The first measurement of a run that fails, in the order of
    `compare.first_failed`."""
    trace = bench.trace(name)
    for number in range(len(trace)):
        failed = measure.first_failed(judge.step(number), bench.threshold, order(trace))
        if failed:
            return failed
    return None


def expectation(bench: Bench, mutant: Mutant) -> tuple[Measurement | None, float]:
    """Where jaxnn's own run, had it the fault, would first leave its replay, and by how
    much at most until there."""
    switches, trace = (
        tuple(SWITCHES[name] for name in mutant.switches),
        bench.trace(JAX),
    )
    clean, largest = bench.judge(JAX), 0.0
    parts = dict.fromkeys(part for switch in switches for part in switch.parts)
    for number in mutant.steps:
        judge = Judge(
            bench.replays,
            Enacted(trace, number, clean.enacted(number, switches)),
            bench.initial,
            bench.threshold,
            THOROUGH,
        )
        measured = [m for part in parts for m in judge.part(part, number)]
        largest = max(largest, *(m.z for m in measured))
        failed = measure.first_failed(measured, bench.threshold, order(trace))
        if failed:
            return failed, largest
    return None, largest


@dataclasses.dataclass(frozen=True)
class Enacted:
    """A recording with one step in another's place.

    Attributes:
      trace: the recording.
      number: of the step.
      step: its tensors.
    """

    trace: Reader
    number: int
    step: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Steps."""
        return len(self.trace)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """One step's tensors."""
        return self.step if number == self.number else self.trace.read(number)
