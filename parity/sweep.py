"""Judges many experiments, each in fp16 and fp32 and from several seeds, and prints one
table.

    python -m parity.sweep launch/experiments/*.flags --steps=20

`--precisions=fp16,fp32` and `--seeds=0,1,2` choose the cells; every other flag goes to
each `parity.run`. Exit code 0: parity everywhere; 1: a divergence; 2: something could
not be judged. An experiment whose data set is not at hand is counted as not judged for
want of data.
"""

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
from rich.console import Console
from rich.table import Table

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import PRECISIONS
from jaxnn.reproduce import NO_DATA
from parity.judging.measure import COULD_NOT_JUDGE, DIVERGENCE, PARITY

TABLE_WIDTH = 160


class SweepCell(NamedTuple):
    """One judgement: an experiment in one precision from one seed."""

    flagfile: pathlib.Path
    precision: str
    seed: int


class CellOutcome(NamedTuple):
    """How a judgement ended.

    Attributes:
      cell: what was judged.
      status: `parity.run`'s exit code.
      verdict: its verdict.json; empty if it could not judge.
      complaint: the last line of one that could not.
    """

    cell: SweepCell
    status: int
    verdict: dict[str, Any]
    complaint: str

    @property
    def has_no_data(self) -> bool:
        """Whether it was not judged because its data set is not here."""
        return self.complaint.startswith(NO_DATA)


def main(arguments: Sequence[str]) -> int:
    """Flagfiles and flags -> table; the exit code of the whole."""
    flagfiles = [
        pathlib.Path(argument)
        for argument in arguments
        if not argument.startswith("--")
    ]
    values, more = parse(
        [argument for argument in arguments if argument.startswith("--")]
    )
    missing = [path for path in flagfiles if not path.is_file()]
    if missing or not flagfiles:
        raise UserError(
            f"{missing[0]}: no such flagfile"
            if missing
            else "give the flagfiles to judge, e.g. launch/experiments/*.flags"
        )
    root = pathlib.Path(
        values["workdir"].value or time.strftime("runs/sweep-%Y%m%d-%H%M%S")
    )
    cells = itertools.product(
        flagfiles,
        values["precisions"].value or (),
        map(int, values["seeds"].value or ()),
    )
    outcomes = [judge(SweepCell(*cell), root, more) for cell in cells]
    return report(outcomes, root)


def parse(arguments: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """This program's flags, and those that go to every judgement."""
    values = flags.FlagValues()
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
    try:
        _, *more = values(["sweep", *arguments], known_only=True)
    except flags.Error as error:
        raise UserError(str(error)) from None
    unknown = set(values["precisions"].value or ("",)) - set(PRECISIONS)
    if unknown:
        raise UserError(
            f"--precisions: unknown precision {unknown.pop()!r}; known: "
            f"{', '.join(PRECISIONS)}"
        )
    seeds = values["seeds"].value or ()
    if not seeds or not all(seed.isdigit() for seed in seeds):
        raise UserError(
            f"--seeds: whole numbers from 0, e.g. 0,1,2; got {','.join(seeds)!r}"
        )
    return values, more


def judge(cell: SweepCell, root: pathlib.Path, more: Sequence[str]) -> CellOutcome:
    """Runs `parity.run` in a process of its own; prints a line when it is done."""
    workdir = root / "-".join([cell.flagfile.stem, cell.precision, str(cell.seed)])
    command = [
        sys.executable,
        "-m",
        "parity.run",
        f"--flagfile={cell.flagfile}",
        f"--precision={cell.precision}",
        f"--seed={cell.seed}",
        f"--workdir={workdir}",
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode in (PARITY, DIVERGENCE):
        outcome = CellOutcome(
            cell,
            done.returncode,
            json.loads((workdir / "verdict.json").read_text()),
            "",
        )
    else:
        complaint = [
            line for line in done.stderr.splitlines() if line.startswith("error:")
        ]
        last = (
            complaint
            or done.stderr.strip().splitlines()
            or [f"exit code {done.returncode}"]
        )[-1]
        outcome = CellOutcome(cell, COULD_NOT_JUDGE, {}, last)
    print(" ".join(row(outcome)), flush=True)
    return outcome


def row(outcome: CellOutcome) -> tuple[str, ...]:
    """The table's row of a judgement: experiment, precision, seed, verdict, worst z,
    where, seconds."""
    cell, verdict = outcome.cell, outcome.verdict
    name = (cell.flagfile.stem, cell.precision, str(cell.seed))
    if not verdict:
        return *name, "no data" if outcome.has_no_data else "NOT JUDGED", "", "", ""
    worst = max(
        (
            quantity
            for recording in verdict["recordings"].values()
            for quantity in named(recording["quantities"])
        ),
        key=lambda quantity: quantity["max_z"],
    )
    seconds = verdict["seconds"]
    where = f"step {worst['step']} {worst['quantity']} {worst['tensor']}"
    word = "parity" if outcome.status == PARITY else "DIVERGENCE"
    return (
        *name,
        word,
        f"{worst['max_z']:.2f}",
        where,
        f"{seconds['recording']:.0f} + {seconds['judging']:.0f}",
    )


def named(quantities: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The quantities that were compared, each with its name."""
    return [
        {"quantity": name, **summary}
        for name, summary in quantities.items()
        if summary["compared"]
    ]


def report(outcomes: Sequence[CellOutcome], root: pathlib.Path) -> int:
    """Prints the table; the exit code of the whole."""
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
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(table)
    without_data = sum(outcome.has_no_data for outcome in outcomes)
    failed = [
        outcome
        for outcome in outcomes
        if outcome.status == COULD_NOT_JUDGE and not outcome.has_no_data
    ]
    diverged = sum(outcome.status == DIVERGENCE for outcome in outcomes)
    for outcome in failed:
        console.print(
            f"{outcome.cell.flagfile.stem} {outcome.cell.precision}: "
            f"{outcome.complaint}",
            soft_wrap=True,
        )
    console.print(
        f"{len(outcomes)} judgements: {diverged} diverged, {len(failed)} could not be "
        f"judged, {without_data} not judged for want of data; files: {root}",
        highlight=False,
        soft_wrap=True,
    )
    return COULD_NOT_JUDGE if failed else DIVERGENCE if diverged else PARITY


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
