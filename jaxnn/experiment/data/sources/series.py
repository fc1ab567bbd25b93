"""A generated time series in windows that predict the next value."""

import numpy as np

from jaxnn.experiment.catalogue import REGRESSION
from jaxnn.experiment.data import splits
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.memory import require_room

# (amplitude, period in steps) of the sine waves in the sum.
WAVES = ((1.0, 40.0), (0.5, 17.0), (0.25, 7.0))

# Standard deviation of the noise on each value. No forecast has a lower RMSE.
NOISE = 0.05


def sine(experiment: Experiment) -> Dataset:
    """Windows of `--num_samples` values of three noisy sine waves with seeded phases.

    Inputs are [n, sequence_length, 1] windows, targets the [n, 1] values after them.
    The splits follow one another in time and share no value. The forecast of no change
    has an RMSE of 0.24.

    Raises:
      UserError: a split is too short for one window, or memory for all of them.
    """
    _require_room(experiment)
    values = series(experiment.num_samples, experiment.split_seed)
    slices = splits.contiguous(experiment, len(values))
    train, validation, test = (
        windows(values[part], experiment.sequence_length) for part in slices
    )
    names = ("training", "validation", "test")
    for name, part, (inputs, _) in zip(names, slices, (train, validation, test)):
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


def _require_room(experiment: Experiment) -> None:
    steps = experiment.sequence_length
    # The largest split has at least a third of the values.
    count = max(experiment.num_samples // 3 - steps, 0)
    require_room(4 * count * steps, "--sequence_length", f"{count} windows")


def series(length: int, seed: int) -> np.ndarray:
    """Returns [length] float32: the sum of the waves and the noise."""
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 2 * np.pi, len(WAVES))
    steps = np.arange(length)
    waves = [
        amplitude * np.sin(2 * np.pi * steps / period + phase)
        for (amplitude, period), phase in zip(WAVES, phases)
    ]
    noise = NOISE * rng.standard_normal(length)
    return (np.sum(waves, axis=0) + noise).astype(np.float32)


def windows(values: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns every window of `steps` values, [n, steps, 1], and its target [n, 1]."""
    if len(values) <= steps:
        return np.zeros((0, steps, 1), np.float32), np.zeros((0, 1), np.float32)
    inputs = np.lib.stride_tricks.sliding_window_view(values[:-1], steps)
    # A copy, because the windows of the view share their memory.
    return np.ascontiguousarray(inputs)[..., None], values[steps:, None]
