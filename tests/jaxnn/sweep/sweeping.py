"""Sweeps and single runs inside the tests' own process."""

import csv
import pathlib

from jaxnn import train
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.sweep import __main__ as sweep

SMALL = (
    "--dataset=iris",
    "--preprocess=standardize",
    "--model=mlp",
    "--hidden_sizes=8,4",
    "--loss=cross_entropy",
    "--epochs=3",
    "--num_devices=1",
    "--noplots",
)
"""An experiment that takes milliseconds, once it is compiled."""


def parsed(*arguments):
    return command_line.parse(
        ["sweep", *map(str, arguments)], "fp32", sweep.define_more
    )


def swept(workdir: pathlib.Path, *arguments) -> list[dict[str, str]]:
    """Rows of the sweep.csv that a sweep writes."""
    sweep.main(*parsed(*SMALL, f"--workdir={workdir}", *arguments))
    with (workdir / sweep.TABLE).open() as file:
        return list(csv.DictReader(file))


def members(*arguments):
    return sweep.make_members(*parsed(*SMALL, *arguments))


def trained(experiment, workdir: pathlib.Path) -> dict[str, float]:
    """Last row of the metrics.csv that jaxnn.train writes."""
    train.main(experiment.replace(workdir=str(workdir), plots=False))
    metrics = artifacts.read_metrics(workdir)
    return {name: column[-1] for name, column in metrics.items()}
