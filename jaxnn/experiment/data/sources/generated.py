"""Generated data sets: a line, truth tables and functions to approximate."""

import numpy as np

from jaxnn.experiment.catalogue import BINARY, REGRESSION
from jaxnn.experiment.data import splits
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

# Test points of an approximation, evenly spaced from 0 to 1.
GRID_POINTS = 1001


def linear(experiment: Experiment) -> Dataset:
    """y = 2x + 1 with x ~ N(0, 1), without noise.

    `--num_samples` is the number of training samples; `--test_fraction` of that number
    are drawn on top for testing.
    """
    rng = np.random.default_rng(experiment.split_seed)
    num_test = splits.drawn_on_top(experiment)
    inputs = rng.standard_normal(
        (experiment.num_samples + num_test, 1), dtype=np.float32
    )
    train, test = np.split(inputs, [experiment.num_samples])
    return _regression(experiment, train, 2 * train + 1, test, 2 * test + 1)


def gates(experiment: Experiment) -> Dataset:
    """The truth table of a gate, whose four rows are training and test split at once.

    Raises:
      UserError: some of the rows are to be held out.
    """
    splits.refuse_folds(experiment, "is four rows, which are all trained on")
    if experiment.validation_fraction:
        raise UserError(
            "--validation_fraction: --dataset=gates is four rows, which are all "
            "trained on; leave it out"
        )
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    targets = np.array(GATES[experiment.gate], np.float32)[:, None]
    return Dataset(
        inputs,
        targets,
        inputs,
        targets,
        BINARY,
        ("false", "true"),
        feature_names=("a", "b"),
    )


def approximation(experiment: Experiment) -> Dataset:
    """`--function` at `--num_samples` uniform points of [0, 1]; tested on a grid."""
    rng = np.random.default_rng(experiment.split_seed)
    function = FUNCTIONS[experiment.function]
    train = rng.random((experiment.num_samples, 1)).astype(np.float32)
    test = np.linspace(0, 1, GRID_POINTS).astype(np.float32)[:, None]
    # Targets are those of the float32 inputs, computed in float64 and rounded once.
    targets = [
        function(inputs.astype(np.float64)).astype(np.float32)
        for inputs in (train, test)
    ]
    return _regression(experiment, train, targets[0], test, targets[1])


def sine(x: np.ndarray) -> np.ndarray:
    """One period: sin(2 pi x)."""
    return np.sin(2 * np.pi * x)


def absolute(x: np.ndarray) -> np.ndarray:
    """A kink: |2x - 1|."""
    return np.abs(2 * x - 1)


def square_wave(x: np.ndarray) -> np.ndarray:
    """A jump: 1 on [0, 1/2), -1 on [1/2, 1]."""
    return np.where(x < 0.5, 1.0, -1.0)


def runge(x: np.ndarray) -> np.ndarray:
    """Runge's function 1 / (1 + 25 u^2) with u = 2x - 1.

    Interpolating polynomials on an even grid fail to approximate it. Source: Runge,
    "Über empirische Funktionen und die Interpolation zwischen äquidistanten Ordinaten",
    1901.
    """
    return 1 / (1 + 25 * np.square(2 * x - 1))


def _regression(
    experiment: Experiment,
    inputs: np.ndarray,
    targets: np.ndarray,
    test_inputs: np.ndarray,
    test_targets: np.ndarray,
) -> Dataset:
    split = splits.held_out(experiment, len(inputs))
    return Dataset.of_splits(
        split,
        inputs,
        targets,
        REGRESSION,
        test=(test_inputs, test_targets),
        feature_names=("x",),
    )


# Gate -> outputs for the inputs 00, 01, 10, 11.
GATES = {
    "and": (0, 0, 0, 1),
    "or": (0, 1, 1, 1),
    "nand": (1, 1, 1, 0),
    "xor": (0, 1, 1, 0),
}
FUNCTIONS = {
    "sine": sine,
    "absolute": absolute,
    "square_wave": square_wave,
    "runge": runge,
}
