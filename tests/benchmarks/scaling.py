"""Does `jaxnn.describe --devices` predict how a step grows with 1, 2, 4, 8 devices?

    python -m tests.benchmarks.scaling [--rounds=3]

Weak scaling of two networks on virtual devices of one CPU, in fresh processes that take
turns. N devices get N cores, or share those there are. One device gives the
utilization, two give the bandwidth; 4 and 8 are predicted from these, and measured.
Exit code 1 if a prediction is off by more than `BOUND`.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from jaxnn.describe import abstract_step, layer_table, scaling, scaling_report
from jaxnn.describe.scaling import Machine, Work
from jaxnn.experiment import cores
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from tests.benchmarks import stopwatch

BOUND = 1.3
"""A prediction is right if it is off by less than this factor."""
DEVICES = (1, 2, 4, 8)
STEPS, EPOCHS = 20, 3


class Network(NamedTuple):
    """Hidden layers of an MLP, and the rows of a batch that a device has."""

    name: str
    sizes: str
    rows: int

    def flags(self, devices: int) -> list[str]:
        """Flags of a run of `STEPS` steps an epoch."""
        batch = self.rows * devices
        return [
            "--dataset=blobs",
            "--model=mlp",
            "--sample_shape=512",
            "--num_classes=10",
            "--loss=cross_entropy",
            "--optimizer=sgd",
            f"--hidden_sizes={self.sizes}",
            f"--num_samples={STEPS * batch}",
            "--test_fraction=0.01",
            f"--batch_size={batch}",
            f"--epochs={EPOCHS}",
            f"--num_devices={devices}",
        ]


NETWORKS = (
    Network("much to compute", "512,512", 512),
    Network("much to sum", "1024,1024", 32),
)


def main(rounds: int) -> bool:
    """Measures, predicts, prints; whether all predictions are right."""
    with tempfile.TemporaryDirectory() as folder:
        return all([check(each, rounds, pathlib.Path(folder)) for each in NETWORKS])


def check(network: Network, rounds: int, folder: pathlib.Path) -> bool:
    """Prints predicted and measured steps of one network."""
    results = stopwatch.take_turns(
        {str(n): lambda n=n: step_seconds(network, n, folder) for n in DEVICES}, rounds
    )
    measured = {int(n): statistics.median(times) for n, times in results.items()}
    work = work_of(network)
    fitted = fit(work, measured)
    return all([compare(network, work, fitted, *each) for each in measured.items()])


def step_seconds(network: Network, devices: int, folder: pathlib.Path) -> float:
    """Seconds of a step in a process that has a core for each device, or all."""
    mine = sorted(os.sched_getaffinity(0))[:devices]
    virtual = f"--xla_force_host_platform_device_count={max(DEVICES)}"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxnn.train",
            *network.flags(devices),
            f"--workdir={folder / str(devices)}",
            "--overwrite",
            "--noplots",
        ],
        env=os.environ | {"XLA_FLAGS": virtual},
        preexec_fn=lambda: os.sched_setaffinity(0, mine),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return artifacts.read_summary(folder / str(devices))["train_seconds"] / (
        STEPS * EPOCHS
    )


def work_of(network: Network) -> Work:
    """What a device does in a step, counted from shapes as the command does."""
    argv = ["train", *network.flags(1)]
    experiment, _ = command_line.parse(argv, default_precision="fp32")
    step = abstract_step.build(experiment, load_dataset(experiment).signature)
    return scaling_report.work_of(step, layer_table.trace(step))


def fit(work: Work, measured: Mapping[int, float]) -> Machine:
    """The cores of one device and of two, from their measured steps."""
    peak = (work.forward + work.backward) / measured[1]
    # Of two devices each sends all of its gradients once.
    sending = max(measured[2] - measured[1], 1e-9)
    return Machine(peak, 1.0, work.gradients / sending)


def compare(
    network: Network, work: Work, core: Machine, devices: int, seconds: float
) -> bool:
    """Prints one row; whether the prediction is right."""
    # Devices beyond the cores share these, but memory is no busier for it.
    share = min(1, cores.usable() / devices)
    machine = core._replace(peak=core.peak * share)
    predicted = scaling.predict(work, machine, devices)
    ratio = seconds / predicted.step
    is_right = 1 / BOUND < ratio < BOUND
    outcome = "fitted" if devices <= 2 else stopwatch.verdict(is_right)
    print(
        f"{network.name:16} {devices} devices: {1e3 * seconds:6.2f} ms a step, "
        f"predicted {1e3 * predicted.step:6.2f} (sum {predicted.communication:4.0%}), "
        f"ratio {ratio:.2f}, {outcome}",
        flush=True,
    )
    return is_right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    sys.exit(0 if main(parser.parse_args().rounds) else 1)
