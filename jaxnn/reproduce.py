"""Runs experiments in full and checks each against what its flagfile promises.

    python -m jaxnn.reproduce launch/experiments/*.flags

Prints one table; exit code 1 if an experiment falls short. An experiment whose data set
is not at hand is not run, and counted as such. Further flags go to every experiment.
"""

import enum
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from rich.table import Table

from jaxnn.experiment.data.at_hand import missing_data
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments
from jaxnn.experiment.results.console import table_console
from jaxnn.experiment.results.promises import (
    Promise,
    read_promises,
    read_seconds,
)
from jaxnn.experiment.results.time_left import TimeLeft

"""Columns where the output is no terminal."""


class Status(enum.Enum):
    """How an experiment ended."""

    FINISHED = enum.auto()
    FAILED = enum.auto()
    NO_DATA = enum.auto()


class Reproduction(NamedTuple):
    """One experiment, run or not.

    Attributes:
      name: name of its flagfile.
      promises: promises at the head of its flagfile.
      status: how it ended.
      seconds: wall time of the whole process.
      final: final metrics; empty unless it finished.
      complaint: last line of a run that failed, or why there are no data.
    """

    name: str
    promises: list[Promise]
    status: Status
    seconds: float = 0.0
    final: Mapping[str, Any] = {}
    complaint: str = ""


def start(arguments: Arguments) -> int:
    """Runs the command; returns the exit code."""
    return main(arguments.names, arguments.forwarded)


def main(names: Sequence[str], more: Sequence[str] = ()) -> int:
    """Runs the experiments of some flagfiles and prints a table.

    Args:
      names: paths of the flagfiles.
      more: flags for every experiment.

    Returns:
      0 if all that could be run kept their promises, else 1.

    Raises:
      UserError: there is no flagfile, or one does not exist or promises nothing that
        can be read.
    """
    flagfiles = existing_flagfiles(names, "run")
    promises = [read_promises(path) for path in flagfiles]
    root = pathlib.Path("runs") / time.strftime("experiments-%Y%m%d-%H%M%S")
    left = TimeLeft([read_seconds(path) for path in flagfiles])
    outcomes = []
    for path, kept in zip(flagfiles, promises):
        print(f"{path.stem} ... ({left.next()})", flush=True)
        outcomes.append(run(path, kept, root / path.stem, more))
    return report(outcomes, root)


def existing_flagfiles(names: Sequence[str], purpose: str) -> list[pathlib.Path]:
    """Returns the paths; raises UserError if there is none or one does not exist."""
    if not names:
        raise UserError(
            f"give the flagfiles to {purpose}, e.g. launch/experiments/*.flags"
        )
    paths = [pathlib.Path(name) for name in names]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such flagfile")
    return paths


def run(
    flagfile: pathlib.Path,
    promises: list[Promise],
    workdir: pathlib.Path,
    more: Sequence[str],
) -> Reproduction:
    """Trains one experiment in a process of its own, if its data are at hand."""
    missing = missing_data([f"--flagfile={flagfile}", *more])
    if missing:
        return Reproduction(
            flagfile.stem, promises, Status.NO_DATA, complaint=f"error: {missing}"
        )
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
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Reproduction(
            flagfile.stem, promises, Status.FAILED, seconds, complaint=lines[-1]
        )
    summary = json.loads((workdir / artifacts.SUMMARY).read_text())
    return Reproduction(
        flagfile.stem, promises, Status.FINISHED, seconds, summary["final"]
    )


def report(outcomes: list[Reproduction], root: pathlib.Path) -> int:
    """Prints the table; returns 1 if an experiment fell short."""
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
    console = table_console()
    console.print(table)
    for outcome in outcomes:
        if outcome.complaint:
            line = f"{outcome.name}: {outcome.complaint}"
            console.out(line, highlight=False)
    not_run = sum(outcome.status is Status.NO_DATA for outcome in outcomes)
    console.out(
        f"{len(outcomes)} experiments, {not_run} not run for want of data, {short} "
        f"promises not kept; files: {root}",
        highlight=False,
    )
    return 1 if short else 0


def add_rows(
    table: Table, outcome: Reproduction, finals: Mapping[str, Mapping[str, Any]]
) -> int:
    """Adds a row for each promise of an experiment; returns how many it broke."""
    broken = 0
    for number, promise in enumerate(outcome.promises):
        word = _kept(outcome, promise, finals)
        value = outcome.final.get(promise.metric)
        measured = promise.metric if value is None else f"{promise.metric} {value:.4g}"
        target = f"{promise.relation} {promise.bound}"
        is_first = number == 0
        table.add_row(
            outcome.name if is_first else "",
            measured,
            target,
            word,
            f"{outcome.seconds:.1f}" if is_first else "",
        )
        broken += word == "NO"
    return broken


def _kept(
    outcome: Reproduction, promise: Promise, finals: Mapping[str, Mapping[str, Any]]
) -> str:
    if outcome.status is Status.NO_DATA:
        return "no data"
    if outcome.status is Status.FINISHED and promise.is_met(outcome.name, finals):
        return "yes"
    return "NO"


def define_flags(values: flags.FlagValues) -> None:
    """Defines no flags of its own: all go to the experiments."""
    del values


if __name__ == "__main__":
    command_line.run_on_names(start, __doc__, define_flags, forwards=True)
