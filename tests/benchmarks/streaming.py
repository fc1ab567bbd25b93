"""Do data that are streamed train as fast as data that stay on the device, and in how
much memory?

    python -m tests.benchmarks.streaming [--rounds=3] [--cache_mb=128]

The MLP of digits.flags, one epoch of digits repeated to 1 GiB in one .npz file, in
fresh processes that take turns. Target: 0.9 of the throughput. Exit code 1 if it is
missed or the two runs' files differ.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files import artifacts
from tests.benchmarks import stopwatch
from tests.memory import anonymous_peak

SIZE, TARGET = 2**30, 0.9
WHOLE_MB = 4096
FLAGS = (
    "--flagfile=launch/experiments/digits.flags",
    "--dataset=npz",
    "--task=multiclass",
    "--epochs=1",
    "--noplots",
    "--num_devices=1",
    "--overwrite",
)


class Training(NamedTuple):
    """A finished run.

    Attributes:
      speed: samples a second, compilation not counted.
      memory: MiB held at most, mapped files not counted.
    """

    speed: float
    memory: float


def main(rounds: int, cache_mb: int) -> bool:
    """Measures, prints; whether the target is met."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write(folder / "digits.npz")
        results = stopwatch.take_turns(
            {
                str(limit): lambda limit=limit: train(folder, limit)
                for limit in (WHOLE_MB, cache_mb)
            },
            rounds,
        )
        equal = all(
            len(
                {
                    (folder / str(limit) / file).read_bytes()
                    for limit in (WHOLE_MB, cache_mb)
                }
            )
            == 1
            for file in (artifacts.METRICS, artifacts.PARAMS)
        )
    whole, streamed = (
        ([run.speed for run in runs], [run.memory for run in runs])
        for runs in results.values()
    )
    for label, (speeds, memory) in (("on the device", whole), ("streamed", streamed)):
        print(
            f"{label:14} {statistics.median(speeds):9,.0f} samples a second, "
            f"{max(memory):6,.0f} MiB at most"
        )
    ratio = stopwatch.median_ratio(streamed[0], whole[0])
    print(
        f"streamed / on the device {ratio:.2f} (>= {TARGET} "
        f"{stopwatch.verdict(ratio >= TARGET)}); files "
        f"{'equal to the bit' if equal else 'DIFFER'}"
    )
    return ratio >= TARGET and equal


def write(path: pathlib.Path) -> None:
    """The digits, over and over."""
    from sklearn.datasets import load_digits

    inputs, classes = load_digits(return_X_y=True)
    inputs = inputs.astype(np.float32)
    times = -(-SIZE // inputs.nbytes)
    np.savez(path, x=np.tile(inputs, (times, 1)), y=np.tile(classes, times))


def train(folder: pathlib.Path, limit: int) -> Training:
    """One run with so many MiB for its data."""
    workdir = folder / str(limit)
    peak = anonymous_peak(
        *FLAGS,
        f"--data_path={folder / 'digits.npz'}",
        f"--device_cache_mb={limit}",
        f"--workdir={workdir}",
    )
    return Training(artifacts.read_summary(workdir)["samples_per_second"], peak / 2**20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache_mb", type=int, default=128)
    sys.exit(not main(**vars(parser.parse_args())))
