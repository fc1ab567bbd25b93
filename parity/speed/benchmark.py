"""Measures the workloads with a goal, and writes the table of a README.

    python -m parity.speed.benchmark --rounds=3

Runs parity.speed on each workload and writes its figures beside their goals between the
markers in --readme. Exit code 0 whether or not goals are reached, 2 on bad input.
"""

import importlib.metadata
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from jaxnn.experiment import cores
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from parity.speed import goals, settings
from parity.speed.goals import RATES, WORKLOADS, Workload

BEGIN = "<!-- written by launch/benchmark.sh: begin -->"
END = "<!-- written by launch/benchmark.sh: end -->"
PACKAGES = ("jax", "torch", "deepspeed")


class Measured(NamedTuple):
    """A workload, measured.

    Attributes:
      workload: what.
      report: contents of its speed.json.
    """

    workload: Workload
    report: dict[str, Any]


def main(values: flags.FlagValues) -> int:
    """Measures the workloads asked for, writes and prints the table."""
    readme = pathlib.Path(values.readme)
    around(readme)  # Said before the first of many minutes.
    chosen = known(values.workloads)
    root = pathlib.Path(values.workdir or time.strftime("runs/benchmark-%Y%m%d-%H%M%S"))
    measured: list[Measured] = []
    lines: list[str] = []
    for workload in chosen:
        measured.append(measure(workload, root, values))
        # Each time, for whoever stops it within the hour.
        lines = table(measured, values.rounds)
        write(readme, lines)
    print("\n".join(lines))
    print(f"wrote {readme}; files: {root}")
    return 0


def table(measured: Sequence[Measured], rounds: int) -> list[str]:
    """Returns the lines of the README."""
    pairs = [(each.workload, each.report) for each in measured]
    return [*goals.rows(pairs), "", machine_line(rounds)]


def write(readme: pathlib.Path, lines: Sequence[str]) -> None:
    """Puts lines between the markers of a README."""
    before, after = around(readme)
    text = f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}"
    artifacts.write_text(readme, text)


def known(names: Sequence[str]) -> list[Workload]:
    """Returns the workloads of some names, all if there are none.

    Raises:
      UserError: there is no such workload.
    """
    by_name = {workload.name: workload for workload in (*WORKLOADS, RATES)}
    command_line.check_known("workloads", names, by_name)
    return [by_name[name] for name in names or by_name]


def measure(
    workload: Workload, root: pathlib.Path, values: flags.FlagValues
) -> Measured:
    """Runs `parity.speed`, or `rates`, on a workload; its table goes to the terminal.

    Raises:
      UserError: it did not end well; it has said why.
    """
    print(f"{workload.name}: {workload.text}", flush=True)
    folder = root / workload.name
    command = [
        sys.executable,
        "-m",
        "parity.speed.rates" if workload == RATES else "parity.speed",
        f"--flagfile={workload.flagfile}",
        *workload.flags,
        f"--rounds={values.rounds}",
        f"--most_seconds={values.most_seconds}",
        f"--workdir={folder}",
    ]
    if workload != RATES:
        command.append(f"--competitors={','.join(values.competitors)}")
    done = subprocess.run(command)
    if done.returncode:
        raise UserError(f"--workloads: {workload.name} could not be measured")
    return Measured(workload, json.loads((folder / "speed.json").read_text()))


def around(readme: pathlib.Path) -> tuple[str, str]:
    """Returns what stands before and after the table of a README.

    Raises:
      UserError: it cannot be read, or has no markers.
    """
    try:
        before, begin, rest = readme.read_text().partition(BEGIN)
    except OSError as error:
        raise UserError(f"--readme: cannot read {readme}: {error.strerror}") from None
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"--readme: {readme} lacks the lines {BEGIN!r} and {END!r}")
    return before, after


def machine_line(rounds: int) -> str:
    """Returns on what and with what the table was measured."""
    named = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    count = cores.usable()
    rounds_text = f"medians of {rounds} rounds" if rounds > 1 else "a single round"
    cpu = cores.processor()
    return f"{count} cores ({cpu}), {rounds_text}, {named}, {time.strftime('%F')}."


def _version(package: str) -> str:
    """Returns a version, or that there is none: such a competitor has failed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    settings.define(values)
    flags.DEFINE_list(
        "workloads",
        [],
        f"Some of {', '.join(w.name for w in (*WORKLOADS, RATES))}; empty: all.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "readme",
        "launch/experiments/README.md",
        "File whose table is written anew.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir",
        "",
        "Folder of the runs; empty: a fresh one under runs/.",
        flag_values=values,
    )


if __name__ == "__main__":
    command_line.run_tool(main, __doc__, define_flags)
