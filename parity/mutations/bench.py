"""One base in one precision: records its clean run and its mutants."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from parity.judging.replays import Replays
from parity.judging.rounds import THOROUGH
from parity.judging.step import Judge
from parity.mutations.plan import STEPS, Mutant
from parity.stacks import INITIAL_PARAMS

JAX_MODULE = "jaxnn.train"
TORCH_MODULE = "torch_ref.planted"

# Names of the two runs without a fault.
CLEAN = "clean"
JAX = "jax"


class Bench(NamedTuple):
    """One base in one precision, and its recordings.

    Attributes:
      base: name of the base.
      experiment: experiment of the base.
      data: data set.
      initial: flat parameters that every run starts from.
      folder: parent folder of the runs, each named after its fault.
      replays: compiled replays, shared by all judgements.
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
        """Returns the judge of one run."""
        return Judge(
            self.replays, self.trace(name), self.initial, self.threshold, THOROUGH
        )

    def trace(self, name: str) -> Reader:
        """Opens the recording of one run."""
        return Reader(self.folder / name / "trace")

    def num_recorded(self, name: str) -> int:
        """Returns the number of recorded steps of one run, 0 without a recording."""
        # Fewer than STEPS where a fault makes training diverge, which ends the run.
        meta = self.folder / name / "trace" / "meta.json"
        return len(self.trace(name)) if meta.exists() else 0


def record(bench: Bench, planted: Sequence[Mutant]) -> list[int]:
    """Records jaxnn's run, the clean run of the torch side and every mutant.

    Args:
      bench: base to record.
      planted: mutants.

    Returns:
      Exit codes of the torch side's runs, the clean one first.

    Raises:
      UserError: jaxnn, the torch side or its clean run failed; its last line is shown.
    """
    bench.folder.mkdir(parents=True)
    artifacts.write_params(_initial_file(bench), bench.initial)
    clean = Mutant((), "", bench.experiment, 0)
    jobs = bench.folder / "jobs.json"
    runs = [_job(bench, mutant, mutant.name or CLEAN) for mutant in (clean, *planted)]
    jobs.write_text(json.dumps(runs))

    # All runs of the torch side share one process, which imports torch and DeepSpeed
    # once. jaxnn's run goes on beside it.
    commands = {
        TORCH_MODULE: [f"--jobs={jobs}"],
        JAX_MODULE: _job(bench, clean, JAX)["arguments"],
    }
    running = {
        module: _start(module, arguments, bench.folder)
        for module, arguments in commands.items()
    }
    codes = {module: process.wait() for module, process in running.items()}

    # Absent if the process died before its last job.
    finished = jobs.with_suffix(".done.json")
    statuses = [codes[TORCH_MODULE]]
    if finished.exists():
        statuses = json.loads(finished.read_text())

    # A mutant may fail, as its fault may make training diverge; these two may not.
    _check_succeeded(bench, TORCH_MODULE, statuses[0])
    _check_succeeded(bench, JAX_MODULE, codes[JAX_MODULE])
    return statuses


def _initial_file(bench: Bench) -> pathlib.Path:
    return bench.folder / INITIAL_PARAMS


def _log_file(folder: pathlib.Path, module: str) -> pathlib.Path:
    return folder / f"{module}.log"


def _start(
    module: str, arguments: Sequence[str], folder: pathlib.Path
) -> subprocess.Popen:
    with _log_file(folder, module).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _check_succeeded(bench: Bench, module: str, code: int) -> None:
    if code:
        log = _log_file(bench.folder, module)
        last_line = " ".join(log.read_text().strip().splitlines()[-1:])
        raise UserError(
            f"cannot judge: {module} failed with exit code {code}: {last_line}; see "
            f"{log}"
        )


def _job(bench: Bench, mutant: Mutant, name: str) -> dict[str, Any]:
    """Writes a run's flagfile and returns its entry for `torch_ref.planted --jobs`."""
    flagfile = bench.folder / f"{name}.flags"
    flagfile.write_text(options.to_flagfile(mutant.experiment.replace(max_steps=STEPS)))
    arguments = [
        f"--flagfile={flagfile}",
        f"--workdir={bench.folder / name}",
        "--noplots",
        "--record=full",
        f"--record_steps={STEPS}",
        f"--init_params={_initial_file(bench)}",
    ]
    return {
        "fault": mutant.fault,
        "first_step": mutant.first_step,
        "arguments": arguments,
    }
