"""How much slower does `--diagnose` make training?

    python -m tests.benchmarks.diagnosis [--rounds=15] [digits cnn_digits]

Shipped experiments with and without the flag, in fresh processes that take turns;
training without import, compilation and files. Target: less than 5 % slower. Exit code
1 if it is missed. Single runs differ by 20 % and more on a shared machine; 15 rounds
take about 7 minutes.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile

from jaxnn.experiment.files import artifacts
from tests.benchmarks import stopwatch

TARGET = 1.05


def main(names: list[str], rounds: int) -> bool:
    """Measures, prints; whether the target is met by all."""
    with tempfile.TemporaryDirectory() as folder:
        return all([measure(name, rounds, pathlib.Path(folder)) for name in names])


def measure(name: str, rounds: int, folder: pathlib.Path) -> bool:
    """Measures one experiment; prints the ratio."""
    results = stopwatch.take_turns(
        {
            flag: lambda flag=flag: train(name, flag, folder / f"{name}{flag}")
            for flag in ("--nodiagnose", "--diagnose")
        },
        # The first compiles, and fills the caches that the others read.
        rounds + 1,
    )
    plain, diagnosed = (seconds[1:] for seconds in results.values())
    ratio = stopwatch.median_ratio(diagnosed, plain)
    print(
        f"{name:12} {statistics.median(plain):.3f} s, with --diagnose "
        f"{statistics.median(diagnosed):.3f} s: ratio {ratio:.3f} (< {TARGET} "
        f"{stopwatch.verdict(ratio < TARGET)})",
        flush=True,
    )
    return ratio < TARGET


def train(name: str, flag: str, workdir: pathlib.Path) -> float:
    """Seconds of training of one run."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxnn.train",
            f"--flagfile=launch/experiments/{name}.flags",
            f"--workdir={workdir}",
            "--overwrite",
            "--noplots",
            flag,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return artifacts.read_summary(workdir)["train_seconds"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["digits", "cnn_digits"])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    sys.exit(0 if main(arguments.names, arguments.rounds) else 1)
