"""torch_ref.train with a known fault planted, by which the judge is measured.

    python -m torch_ref.planted --fault=loss_summed --first_step=2 --flagfile=launch/experiments/breast_cancer.flags
    python -m torch_ref.planted --jobs=jobs.json

jobs.json is a list of {"fault": NAME, "first_step": NUMBER, "arguments": [FLAG, ...]},
each with a --workdir of its own. All run in this one process, one after the other;
jobs.done.json then lists their exit codes.
"""

import contextlib
import gc
import json
import pathlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch, put
from torch_ref import engine as engines
from torch_ref import train
from torch_ref.faults import FAULTS
from torch_ref.faults.fault import planted

ZERO_STAGES = (1, 2)


def main(experiment: Experiment, values: flags.FlagValues) -> int:
    """One training or a list of them; returns the largest exit code."""
    if values["jobs"].value:
        return run_jobs(pathlib.Path(values["jobs"].value))
    train_with_fault(experiment, values)
    return 0


def train_with_fault(experiment: Experiment, values: flags.FlagValues) -> None:
    """`train.main` with `--fault` from `--first_step` on.

    Raises:
      UserError: the fault is unknown or does not apply, and whatever training raises.
    """
    name, first_step = values["fault"].value, values["first_step"].value
    check(name, experiment)
    with (
        planted(FAULTS[name], experiment, first_step)
        if name
        else contextlib.nullcontext()
    ):
        train.main(experiment, values)


def check(name: str, experiment: Experiment) -> None:
    """Raises UserError unless a fault can be planted in an experiment; an empty name is
    none, and can."""
    if name and name not in FAULTS:
        raise UserError(
            f"--fault: unknown fault {name!r}; known are {', '.join(FAULTS)}"
        )
    if name and not FAULTS[name].applies(experiment):
        raise UserError(
            f"--fault: {name} needs {FAULTS[name].needs}; give it that or plant another"
        )
    if name and experiment.zero_stage not in ZERO_STAGES:
        raise UserError(
            "--zero_stage: faults are planted under ZeRO stage 1 or 2, not "
            f"{experiment.zero_stage}"
        )


def run_jobs(path: pathlib.Path) -> int:
    """Runs the jobs of a file, writes their exit codes beside it and returns the
    largest.

    Raises:
      UserError: the file cannot be read, or is no list of jobs.
    """
    jobs = read_jobs(path)
    with process_group_kept():
        statuses = [run_job(number, job) for number, job in enumerate(jobs)]
    artifacts.write_text(path.with_suffix(".done.json"), json.dumps(statuses) + "\n")
    return max(statuses, default=0)


def read_jobs(path: pathlib.Path) -> list[Mapping[str, Any]]:
    """The jobs of a file; raises UserError as `run_jobs` does."""
    try:
        jobs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--jobs: cannot read {path}: {error}") from None
    if not isinstance(jobs, list) or not all(
        isinstance(job, dict)
        and job.keys() == JOB.keys()
        and all(isinstance(job[key], kind) for key, kind in JOB.items())
        and all(isinstance(argument, str) for argument in job["arguments"])
        for job in jobs
    ):
        raise UserError(
            f"--jobs: {path} is no list of objects with {', '.join(JOB)}; see --help"
        )
    return jobs


def run_job(number: int, job: Mapping[str, Any]) -> int:
    """Trains one job; returns its exit code, and says on stderr what it died of."""
    argv = [
        "job",
        *job["arguments"],
        f"--fault={job['fault']}",
        f"--first_step={job['first_step']}",
    ]
    try:
        train_with_fault(*command_line.parse(argv, DEFAULT_PRECISION, define_flags))
        return 0
    except UserError as error:
        print(f"error: job {number}: {error}", file=sys.stderr)
        return command_line.BAD_INPUT
    except Exception as error:
        traceback.print_exc()
        print(f"error: job {number}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        gc.collect()  # engines hold themselves in cycles


@contextlib.contextmanager
def process_group_kept() -> Iterator[None]:
    """Jobs share one process group: DeepSpeed cannot make a second one in a process."""
    with contextlib.ExitStack() as undo:
        put(
            undo,
            [
                Patch(engines, "shut_down", lambda plain: lambda: None),
                Patch(engines, "fp16_kernels", _asked_anew),
            ],
        )
        yield
    engines.shut_down()


def _asked_anew(plain):
    """What a run has the accelerator answer is forgotten before the next one asks."""

    def fp16_kernels(experiment: Experiment) -> str:
        from deepspeed.accelerator import get_accelerator

        vars(get_accelerator()).pop("is_fp16_supported", None)
        return plain(experiment)

    return fp16_kernels


def define_flags(values: flags.FlagValues) -> None:
    """What is planted, beside the flags of torch_ref.train."""
    train.define_launcher_flags(values)
    flags.DEFINE_string("fault", "", "Fault to plant; empty: none.", flag_values=values)
    flags.DEFINE_integer(
        "first_step",
        0,
        "Step from which on the fault acts, counted from 0; faults of the start "
        "have no regard for it.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "jobs",
        "",
        "File of jobs to run instead, whose flags are their own.",
        flag_values=values,
    )


JOB = {"fault": str, "first_step": int, "arguments": list}
DEFAULT_PRECISION = "fp16"

if __name__ == "__main__":
    command_line.run(
        main, __doc__, DEFAULT_PRECISION, define_more=define_flags, leave=engines.leave
    )
