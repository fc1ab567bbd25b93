"""Recorded steps beside what they would be by a formula."""

import functools

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from tests.torch_ref.faults.cases import CASES, EXPERIMENTS, FIRST

UNIT = 2.0**-24
"""Largest relative error of a rounding to float32."""


def pair(steps, name: str, number: int = FIRST):
    """A step without the fault and with it."""
    case = next(case for case in CASES if str(case) == name)
    return steps(f"before-{case.clean}")[number], steps(name)[number]


def wide(step: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {
        name: array.astype(np.float64) for name, array in select(step, kind).items()
    }


def assert_within(
    actual: dict[str, np.ndarray],
    wanted: dict[str, np.ndarray],
    units: float,
    sizes: dict[str, np.ndarray],
) -> None:
    """Within so many roundings to float32 of numbers of these sizes."""
    assert actual.keys() == wanted.keys() != set()
    for name, array in wanted.items():
        assert (abs(actual[name] - array) <= units * UNIT * sizes[name]).all(), name


def assert_updated(
    step: dict[str, np.ndarray], directions: dict[str, np.ndarray]
) -> None:
    """updated = params - lr direction: 16 roundings of the direction, 2 of the
    difference."""
    rate, params = float(step["learning_rate"]), wide(step, "params")
    wanted = {name: array - rate * directions[name] for name, array in params.items()}
    sizes = {
        name: 16 * rate * abs(directions[name]) + 2 * abs(array)
        for name, array in params.items()
    }
    assert_within(wide(step, "updated"), wanted, 1, sizes)


def experiment_of(name: str) -> Experiment:
    return command_line.parse(["", *EXPERIMENTS[name]], "fp32")[0]


@functools.cache
def data_of(name: str) -> Dataset:
    return load_dataset(experiment_of(name))
