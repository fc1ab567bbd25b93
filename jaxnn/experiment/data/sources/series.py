"""A time series, in windows that predict the value after them."""

import numpy as np

from jaxnn.experiment.data import splits
from jaxnn.experiment.data.dataset import REGRESSION, Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

WAVES = ((1.0, 40.0), (0.5, 17.0), (0.25, 7.0))
"""(amplitude, period in steps) of the sine waves in the sum."""
NOISE = 0.05
"""Standard deviation of the noise on each value: no forecast has a lower RMSE."""


def sine(experiment: Experiment) -> Dataset:
    """`num_samples` values of three sine waves with seeded phases and a little noise;
    predict the next one.

    A window has `sequence_length` values, [n, steps, 1], and its target [n, 1] is the
    value after it, in the series' own units. The splits follow one another in time, and
    no value of one is in a window or a target of another. That nothing changes from one
    step to the next is wrong by an RMSE of 0.24.

    Raises:
      UserError: a split is too short for one window.
    """
    values = series(experiment.num_samples, experiment.split_seed)
    parts = splits.contiguous(experiment, len(values))
    train, validation, test = (
        windows(values[part], experiment.sequence_length) for part in parts
    )
    for name, part, (inputs, _) in zip(
        ("training", "validation", "test"), parts, (train, validation, test)
    ):
        if not len(inputs) and (name != "validation" or experiment.validation_fraction):
            raise UserError(
                f"--sequence_length: a window of {experiment.sequence_length} steps "
                f"and its target do not fit the {part.stop - part.start} values of the "
                f"{name} split; give more --num_samples"
            )
    if not experiment.validation_fraction:
        validation = (None, None)
    return Dataset(
        *train,
        *test,
        REGRESSION,
        validation_inputs=validation[0],
        validation_targets=validation[1],
    )


def series(length: int, seed: int) -> np.ndarray:
    """[length] float32: the waves from seeded phases, and noise."""
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, len(WAVES))
    steps = np.arange(length)
    waves = [
        amplitude * np.sin(2 * np.pi * steps / period + phase)
        for (amplitude, period), phase in zip(WAVES, phases)
    ]
    return (np.sum(waves, axis=0) + NOISE * rng.standard_normal(length)).astype(
        np.float32
    )


def windows(values: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Every run of `steps` values, [n, steps, 1], and the value after each, [n, 1]."""
    if len(values) <= steps:
        return np.zeros((0, steps, 1), np.float32), np.zeros((0, 1), np.float32)
    inputs = np.lib.stride_tricks.sliding_window_view(values[:-1], steps)
    return np.ascontiguousarray(inputs)[..., None], values[steps:, None]
