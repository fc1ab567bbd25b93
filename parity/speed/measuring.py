"""Runs competitors in fresh processes that take turns, and keeps what they report."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxnn.experiment.files import artifacts
from parity.speed import clocked
from parity.speed.competitors import Competitor, flagfile_for, full_command


class Run(NamedTuple):
    """One run that ended well.

    Attributes:
      wall: seconds of the whole process, start to exit.
      training: seconds of all epochs with their evaluations; imports, compilation and
        files are not in it.
      throughput: training samples a second of training.
      memory: most bytes that were resident.
      test_loss: loss of the test split after the last epoch.
      steps: training steps.
    """

    wall: float
    training: float
    throughput: float
    memory: float
    test_loss: float
    steps: int


class Result(NamedTuple):
    """What a competitor reached.

    Attributes:
      competitor: who.
      runs: its runs, one a round; empty if it failed.
      failure: why it failed, in one line, or "".
    """

    competitor: Competitor
    runs: tuple[Run, ...]
    failure: str = ""

    def median(self, field: str) -> float:
        """Returns the median over the rounds of a field of `Run`."""
        return statistics.median(getattr(run, field) for run in self.runs)


class Failed(Exception):
    """A run that did not end well; its text says why in one line."""


def measure(
    competitors: Sequence[Competitor],
    root: pathlib.Path,
    rounds: int,
    most_seconds: float,
    show: Callable[[str], None],
) -> list[Result]:
    """Lets all competitors train once to fill their caches, then once a round.

    Every other round runs in reverse order, so that nobody always comes first. Who
    fails is not asked again.

    Args:
      competitors: who trains.
      root: folder with the flagfile; gets a folder for each competitor.
      rounds: runs of each that count.
      most_seconds: a run that takes longer has failed.
      show: told what is under way.
    """
    runs: dict[str, list[Run]] = {each.label: [] for each in competitors}
    failures: dict[str, str] = {}
    for number in range(rounds + 1):
        order = competitors if number % 2 else competitors[::-1]
        for competitor in order:
            if competitor.label in failures:
                continue
            name = f"round {number} of {rounds}" if number else "filling caches"
            show(f"{name}: {competitor.label}")
            try:
                runs[competitor.label].append(run(competitor, root, most_seconds))
            except Failed as error:
                failures[competitor.label] = str(error)
    return [_result(each, runs, failures) for each in competitors]


def run(competitor: Competitor, root: pathlib.Path, most_seconds: float) -> Run:
    """Trains once in a fresh process.

    Raises:
      Failed: it did not end well.
    """
    workdir = root / competitor.folder
    command = full_command(competitor, flagfile_for(root), workdir)
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        clock = [sys.executable, "-IS", clocked.__file__, report.name]
        done = subprocess.run(
            [*clock, str(most_seconds), *command, "--overwrite"],
            capture_output=True,
            text=True,
            env=competitor.environment,
        )
        if done.returncode:
            raise Failed(_complaint(done, most_seconds))
        clocks = json.load(report)
    summary = artifacts.read_summary(workdir)
    return Run(
        wall=clocks["wall"],
        training=summary["train_seconds"],
        throughput=summary["samples_per_second"],
        memory=clocks["memory"],
        test_loss=summary["test_loss"],
        steps=summary["steps"],
    )


def _result(
    competitor: Competitor,
    runs: Mapping[str, list[Run]],
    failures: Mapping[str, str],
) -> Result:
    failure = failures.get(competitor.label, "")
    # The first run filled the caches.
    kept = () if failure else tuple(runs[competitor.label][1:])
    return Result(competitor, kept, failure)


def _complaint(done: subprocess.CompletedProcess, most_seconds: float) -> str:
    """Returns the error that a run ended with, else its last line."""
    if done.returncode == clocked.TOO_LONG:
        return f"took more than {most_seconds:g} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or lines or [f"exit code {done.returncode}"])[-1]
    return last.removeprefix("error: ")
