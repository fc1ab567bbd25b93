"""Runs experiments in full and compares each with the metric that the head of its
flagfile promises.

    python -m jaxnn.reproduce launch/experiments/*.flags

Prints one table; exit code 1 if an experiment falls short. An experiment whose data set
is not at hand is not run, and counted as such.
"""

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.results.promises import Promise, read_promises

NO_DATA = "error: --data_path:"


class Reproduction(NamedTuple):
    """How one experiment ended.

    Attributes:
      name: of its flagfile.
      promises: of its head.
      final: metrics; empty if it did not end well.
      seconds: of the whole process.
      complaint: the last line of a run that failed.
    """

    name: str
    promises: list[Promise]
    final: dict[str, Any]
    seconds: float
    complaint: str

    @property
    def has_no_data(self) -> bool:
        """Whether it was not run because its data set is not here."""
        return self.complaint.startswith(NO_DATA)


def main(arguments: list[str]) -> int:
    """Flagfiles -> table; 0 if all that could be run kept their promises."""
    if not arguments:
        raise UserError("give the flagfiles to run, e.g. launch/experiments/*.flags")
    flagfiles = [
        pathlib.Path(argument)
        for argument in arguments
        if not argument.startswith("--")
    ]
    more = [argument for argument in arguments if argument.startswith("--")]
    missing = [path for path in flagfiles if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such flagfile")
    promises = [read_promises(path) for path in flagfiles]
    root = pathlib.Path("runs") / time.strftime("experiments-%Y%m%d-%H%M%S")
    outcomes = [
        run(path, kept, root / path.stem, more)
        for path, kept in zip(flagfiles, promises)
    ]
    return report(outcomes, root)


def run(
    flagfile: pathlib.Path,
    promises: list[Promise],
    workdir: pathlib.Path,
    more: list[str],
) -> Reproduction:
    """Trains one experiment in a process of its own."""
    print(f"{flagfile.stem} ...", flush=True)
    start = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "jaxnn.train",
        f"--flagfile={flagfile}",
        f"--workdir={workdir}",
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        complaint = (
            done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        )[-1]
        return Reproduction(flagfile.stem, promises, {}, seconds, complaint)
    final = json.loads((workdir / artifacts.SUMMARY).read_text())["final"]
    return Reproduction(flagfile.stem, promises, final, seconds, "")


def report(outcomes: list[Reproduction], root: pathlib.Path) -> int:
    """Prints the table; 1 if an experiment fell short."""
    finals = {outcome.name: outcome.final for outcome in outcomes}
    table = Table(
        "experiment",
        "metric",
        "target",
        "met",
        "seconds",
        box=None,
        header_style="bold",
    )
    short = sum(add_rows(table, outcome, finals) for outcome in outcomes)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for outcome in outcomes:
        if outcome.complaint:
            console.print(
                f"{outcome.name}: {outcome.complaint}", highlight=False, soft_wrap=True
            )
    not_run = sum(outcome.has_no_data for outcome in outcomes)
    console.print(
        f"{len(outcomes)} experiments, {not_run} not run for want of data, {short} "
        f"promises not kept; files: {root}",
        highlight=False,
        soft_wrap=True,
    )
    return 1 if short else 0


def add_rows(
    table: Table, outcome: Reproduction, finals: Mapping[str, Mapping[str, Any]]
) -> int:
    """Adds a row for each promise of an experiment; how many it did not keep."""
    short = 0
    for number, promise in enumerate(outcome.promises):
        met = bool(outcome.final) and promise.is_met(outcome.name, finals)
        value = outcome.final.get(promise.metric)
        measured = (
            f"{promise.metric} {value:.4g}" if value is not None else promise.metric
        )
        word = "yes" if met else "no data" if outcome.has_no_data else "NO"
        first = (outcome.name, f"{outcome.seconds:.1f}") if number == 0 else ("", "")
        table.add_row(
            first[0], measured, f"{promise.relation} {promise.bound}", word, first[1]
        )
        short += word == "NO"
    return short


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
