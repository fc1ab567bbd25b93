"""Is a whole run, from `python` to its files, ahead of importing torch and training
eagerly?

    python -m tests.benchmarks.cold_start [--rounds=7]

Breast cancer, 100 epochs, in fresh processes that take turns after one warm-up each,
which fills the caches of data and compiled programs. Targets: less wall time and no
more memory than PyTorch, which writes no files. PyTorch runs with its default threads
and with one: on a busy machine its threads wait for each other, so each round counts
the faster. Exit code 1 if a target is missed.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from tests.benchmarks import stopwatch

FLAGFILE = "--flagfile=launch/experiments/breast_cancer.flags"


class Process(NamedTuple):
    """A finished process.

    Attributes:
      wall: seconds from its start to its end.
      peak: largest resident memory, MiB.
      output: what it printed.
    """

    wall: float
    peak: float
    output: str


def main(rounds: int) -> bool:
    """Measures, prints; whether both targets are met."""
    competitors = {"jaxnn": run_jaxnn, "torch": run_torch}
    stopwatch.take_turns(competitors, rounds=1)
    results = stopwatch.take_turns(competitors, rounds)
    print(f"breast cancer, whole process, median of {rounds}")
    met = [
        row(
            label,
            unit,
            *(
                [getattr(process, field) for process in results[side]]
                for side in competitors
            ),
        )
        for label, unit, field in (
            ("wall time", "s", "wall"),
            ("peak memory", "MiB", "peak"),
        )
    ]
    print_stages([process.output for process in results["jaxnn"]])
    return all(met)


def row(label: str, unit: str, ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Prints one comparison; whether we are ahead."""
    ratio = stopwatch.median_ratio(theirs, ours)
    print(
        f"{label:12} jaxnn {statistics.median(ours):7.2f} {unit:4} torch "
        f"{statistics.median(theirs):7.2f} {unit:4} torch/jaxnn {ratio:5.2f} (>= 1 "
        f"{stopwatch.verdict(ratio >= 1)})"
    )
    return ratio >= 1


def print_stages(outputs: Sequence[str]) -> None:
    """Where jaxnn's time goes: the medians of its own `seconds:` lines."""
    lines = [
        line.removeprefix("seconds: ")
        for output in outputs
        for line in output.splitlines()
        if line.startswith("seconds: ")
    ]
    runs = [
        {
            stage: float(value)
            for stage, value in (part.rsplit(" ", 1) for part in line.split(", "))
        }
        for line in lines
    ]
    print(
        "jaxnn's seconds: "
        + ", ".join(
            f"{stage} {statistics.median(run[stage] for run in runs):.2f}"
            for stage in runs[0]
        )
    )


def run_jaxnn() -> Process:
    """The product, with a workdir that vanishes."""
    with tempfile.TemporaryDirectory() as folder:
        return run("jaxnn.train", FLAGFILE, f"--workdir={pathlib.Path(folder) / 'run'}")


def run_torch() -> Process:
    """Import and training of the eager loop, on the same cached data, with the better
    number of threads."""
    return min(
        run("tests.benchmarks.eager_torch", FLAGFILE, environment=environment)
        for environment in ({}, {"OMP_NUM_THREADS": "1"})
    )


def run(
    module: str, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})
) -> Process:
    """Runs `python -m module arguments` to its end, with `environment` added to this
    process's.

    Raises:
      RuntimeError: it failed; what it printed went to the terminal.
    """
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert child.stdout
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise RuntimeError(
            f"python -m {module} {' '.join(arguments)}: failed with status "
            f"{status}\n{output}"
        )
    return Process(wall, usage.ru_maxrss / 1024, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    sys.exit(0 if main(parser.parse_args().rounds) else 1)
