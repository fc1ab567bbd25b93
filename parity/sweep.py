"""Judges many experiments, in several precisions and from several seeds.

    python -m parity.sweep launch/experiments/*.flags --steps=20

Prints one table. `--precisions=fp16,fp32` and `--seeds=0,1,2` choose the cells; every
other flag goes to each `parity.run`. Exit code 0: parity everywhere; 1: a divergence;
2: something could not be judged. An experiment whose data set is not at hand is counted
as not judged for want of data.
"""

import enum
import itertools
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags
from rich import box
from rich.table import Table

from jaxnn.experiment.data.at_hand import missing_data
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments
from jaxnn.experiment.flags.config import PRECISIONS
from jaxnn.experiment.results.console import table_console
from jaxnn.experiment.results.time_left import TimeLeft
from jaxnn.reproduce import existing_flagfiles
from parity.judging.measure import spell_z, z_from_json
from parity.judging.verdict import COULD_NOT_JUDGE, DIVERGENCE, PARITY

TABLE_WIDTH = 160
"""Columns where the output is no terminal."""


class Status(enum.Enum):
    """How a judgement ended; the value is the table's word for it."""

    PARITY = "parity"
    DIVERGENCE = "DIVERGENCE"
    NOT_JUDGED = "NOT JUDGED"
    NO_DATA = "no data"


STATUS_OF = {PARITY: Status.PARITY, DIVERGENCE: Status.DIVERGENCE}
"""Exit code of `parity.run` -> how it ended; any other is NOT_JUDGED."""


class SweepCell(NamedTuple):
    """One judgement: an experiment in one precision from one seed."""

    flagfile: pathlib.Path
    precision: str
    seed: int


class CellOutcome(NamedTuple):
    """How one judgement ended.

    Attributes:
      cell: what was judged.
      status: how it ended.
      verdict: contents of its verdict.json; empty if it could not judge.
      complaint: last line of one that could not.
    """

    cell: SweepCell
    status: Status
    verdict: dict[str, Any]
    complaint: str = ""


def main(arguments: Arguments) -> int:
    """Flagfiles and flags -> table; returns the exit code of the whole."""
    flagfiles = existing_flagfiles(arguments.names, "judge")
    precisions, seeds = check(arguments.values)
    workdir = arguments.values.workdir
    root = pathlib.Path(workdir or time.strftime("runs/sweep-%Y%m%d-%H%M%S"))
    combined = itertools.product(flagfiles, precisions, seeds)
    cells = list(itertools.starmap(SweepCell, combined))
    left = TimeLeft([1.0] * len(cells))
    outcomes = []
    for cell in cells:
        which = left.next()
        outcomes.append(judge(cell, root, arguments.forwarded))
        # A line as soon as it is known: a sweep takes minutes.
        print(" ".join(row(outcomes[-1])), f"({which})", flush=True)
    return report(outcomes, root)


def check(values: flags.FlagValues) -> tuple[list[str], list[int]]:
    """Returns the precisions and seeds to judge; raises UserError on a bad one."""
    precisions = values.precisions or ()
    unknown = set(precisions or ("",)) - set(PRECISIONS)
    if unknown:
        raise UserError(
            f"--precisions: unknown precision {unknown.pop()!r}; known: "
            f"{', '.join(PRECISIONS)}"
        )
    seeds = values.seeds or ()
    if not seeds or not all(seed.isdigit() for seed in seeds):
        raise UserError(
            f"--seeds: whole numbers from 0, e.g. 0,1,2; got {','.join(seeds)!r}"
        )
    return list(precisions), [int(seed) for seed in seeds]


def judge(cell: SweepCell, root: pathlib.Path, more: Sequence[str]) -> CellOutcome:
    """Runs `parity.run` in a process of its own, if the data are at hand."""
    flagfile = f"--flagfile={cell.flagfile}"
    missing = missing_data([flagfile, *more])
    if missing:
        return CellOutcome(cell, Status.NO_DATA, {}, f"error: {missing}")
    workdir = root / "-".join([cell.flagfile.stem, cell.precision, str(cell.seed)])
    command = [
        sys.executable,
        "-m",
        "parity.run",
        flagfile,
        f"--precision={cell.precision}",
        f"--seed={cell.seed}",
        f"--workdir={workdir}",
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    status = STATUS_OF.get(done.returncode, Status.NOT_JUDGED)
    path = workdir / "verdict.json"
    # Python itself ends with 1 where a module cannot be imported, say: only a verdict
    # that was written makes it a divergence.
    if status is Status.NOT_JUDGED or not path.exists():
        return CellOutcome(cell, Status.NOT_JUDGED, {}, _complaint(done))
    return CellOutcome(cell, status, json.loads(path.read_text()))


def _complaint(done: subprocess.CompletedProcess) -> str:
    """Returns the error that a judgement ended with, else its last line."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    lines = done.stderr.strip().splitlines()
    return (errors or lines or [f"exit code {done.returncode}"])[-1]


def row(outcome: CellOutcome) -> tuple[str, ...]:
    """Returns the table's row of a judgement."""
    cell = outcome.cell
    verdict = outcome.verdict
    head = (cell.flagfile.stem, cell.precision, str(cell.seed), outcome.status.value)
    if not verdict:
        return *head, "", "", ""
    compared = [
        {"quantity": name, **summary}
        for recording in verdict["recordings"].values()
        for name, summary in recording["quantities"].items()
        if summary["compared"]
    ]
    worst = max(compared, key=lambda summary: z_from_json(summary["max_z"]))
    where = f"step {worst['step']} {worst['quantity']} {worst['tensor']}"
    seconds = verdict["seconds"]
    took = f"{seconds['recording']:.0f} + {seconds['judging']:.0f}"
    return *head, spell_z(z_from_json(worst["max_z"])), where, took


def report(outcomes: Sequence[CellOutcome], root: pathlib.Path) -> int:
    """Prints the table; returns the exit code of the whole."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in (
        "experiment",
        "precision",
        "seed",
        "verdict",
        "worst z",
        "at",
        "seconds: record + judge",
    ):
        table.add_column(header, no_wrap=True)
    for outcome in outcomes:
        table.add_row(*row(outcome))
    console = table_console(piped=TABLE_WIDTH)
    console.print(table)
    failed = [outcome for outcome in outcomes if outcome.status is Status.NOT_JUDGED]
    diverged = sum(outcome.status is Status.DIVERGENCE for outcome in outcomes)
    without_data = sum(outcome.status is Status.NO_DATA for outcome in outcomes)
    for outcome in failed:
        name = f"{outcome.cell.flagfile.stem} {outcome.cell.precision}"
        console.out(f"{name}: {outcome.complaint}", highlight=False)
    console.out(
        f"{len(outcomes)} judgements: {diverged} diverged, {len(failed)} could not be "
        f"judged, {without_data} not judged for want of data; files: {root}",
        highlight=False,
    )
    if failed:
        return COULD_NOT_JUDGE
    return DIVERGENCE if diverged else PARITY


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's own flags; others go to every judgement."""
    flags.DEFINE_list(
        "precisions", ["fp16", "fp32"], "Precisions to judge.", flag_values=values
    )
    flags.DEFINE_list("seeds", ["0"], "Seeds to judge.", flag_values=values)
    flags.DEFINE_string(
        "workdir",
        "",
        "Folder of the judgements; empty: a fresh one under runs/.",
        flag_values=values,
    )


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_on_names(
        main, __doc__, define_flags, forwards=True, crash_status=COULD_NOT_JUDGE
    )


if __name__ == "__main__":
    command()
