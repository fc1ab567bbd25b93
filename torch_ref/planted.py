"""torch_ref.train with a known fault planted, to measure the judge.

    python -m torch_ref.planted --fault=loss_summed --first_step=2 --flagfile=FILE
    python -m torch_ref.planted --jobs=jobs.json

jobs.json is a list of {"fault": NAME, "first_step": NUMBER, "arguments": [FLAG, ...]},
each with a --workdir of its own. All run in this one process, one after the other, so
that torch and DeepSpeed start once; jobs.done.json then lists their exit codes.
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
from torch_ref import kernels, ranks, train
from torch_ref.faults import FAULTS
from torch_ref.faults.fault import planted

ZERO_STAGES = (1, 2)
"""Stages whose optimizers the faults know."""
JOB = {"fault": str, "first_step": int, "arguments": list}
"""Keys and types of a job."""
DEFAULT_PRECISION = "fp16"


def main(experiment: Experiment, values: flags.FlagValues) -> int:
    """Trains once, or runs a list of jobs; returns the largest exit code."""
    if values.jobs:
        return run_jobs(pathlib.Path(values.jobs))
    train_with_fault(experiment, values)
    return 0


def train_with_fault(experiment: Experiment, values: flags.FlagValues) -> None:
    """Runs `train.main` with `--fault` from `--first_step` on.

    Raises:
      UserError: the fault is unknown or does not apply, or training raises it.
    """
    name = values.fault
    first_step = values.first_step
    check(name, experiment)
    fault = contextlib.nullcontext()
    if name:
        fault = planted(FAULTS[name], experiment, first_step)
    with fault:
        train.main(experiment, values)


def check(name: str, experiment: Experiment) -> None:
    """Raises UserError if a fault cannot be planted in an experiment; "" is none."""
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
    """Returns the jobs of a file; raises UserError as `run_jobs` does."""
    try:
        jobs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--jobs: cannot read {path}: {error}") from None
    if not isinstance(jobs, list) or not all(map(_is_job, jobs)):
        raise UserError(
            f"--jobs: {path} is no list of objects with {', '.join(JOB)}; see --help"
        )
    return jobs


def run_job(number: int, job: Mapping[str, Any]) -> int:
    """Trains one job; returns its exit code and prints its error, if any, to stderr."""
    argv = [
        "job",
        *job["arguments"],
        f"--fault={job['fault']}",
        f"--first_step={job['first_step']}",
    ]
    try:
        train_with_fault(*command_line.parse(argv, DEFAULT_PRECISION, define_flags))
        return 0
    # A job that fails must not end the jobs after it.
    except UserError as error:
        print(f"error: job {number}: {error}", file=sys.stderr)
        return command_line.BAD_INPUT
    except Exception as error:
        traceback.print_exc()
        print(f"error: job {number}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        # An engine holds itself in cycles, and all its memory with it.
        gc.collect()


@contextlib.contextmanager
def process_group_kept() -> Iterator[None]:
    """Lets jobs share a process group: DeepSpeed cannot make a second in a process."""
    with contextlib.ExitStack() as undo:
        # The first patch keeps `train.main` from leaving the group after each job.
        put(
            undo,
            [
                Patch(ranks, "shut_down", lambda plain: lambda: None),
                Patch(kernels, "fp16_kernels", _asked_anew),
            ],
        )
        yield
    ranks.shut_down()


def _is_job(job: Any) -> bool:
    return (
        isinstance(job, dict)
        and job.keys() == JOB.keys()
        and all(isinstance(job[key], kind) for key, kind in JOB.items())
        and all(isinstance(argument, str) for argument in job["arguments"])
    )


def _asked_anew(plain: Any) -> Any:
    """Makes each job ask the accelerator itself, not what the last job left there."""

    def fp16_kernels(experiment: Experiment) -> str:
        from deepspeed.accelerator import get_accelerator

        # The attribute of the instance hides the method of its class.
        vars(get_accelerator()).pop("is_fp16_supported", None)
        return plain(experiment)

    return fp16_kernels


def define_flags(values: flags.FlagValues) -> None:
    """Defines what to plant, beside the flags of torch_ref.train."""
    train.define_launcher_flags(values)
    flags.DEFINE_string("fault", "", "Fault to plant; empty: none.", flag_values=values)
    flags.DEFINE_integer(
        "first_step",
        0,
        "First step that the fault acts on, from 0; faults that begin with the run "
        "ignore it.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "jobs",
        "",
        "File of jobs to run instead, each with flags of its own.",
        flag_values=values,
    )


if __name__ == "__main__":
    command_line.run(
        main, __doc__, DEFAULT_PRECISION, define_more=define_flags, leave=ranks.leave
    )
