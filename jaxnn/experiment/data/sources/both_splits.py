"""Samples that are drawn for both splits: `--num_samples` for training, and
`--test_fraction` of that number on top for testing."""

import numpy as np

from jaxnn.experiment.data import splits
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.memory import require_room


def count(experiment: Experiment, flags: str, num_bytes: int) -> int:
    """Returns how many samples to draw for both splits.

    Args:
      experiment: number of samples.
      flags: give their number and size, for the message.
      num_bytes: of a sample.

    Raises:
      UserError: memory does not hold them.
    """
    samples = experiment.num_samples + splits.drawn_on_top(experiment)
    require_room(num_bytes * samples, flags, f"{samples} samples")
    return samples


def split(
    experiment: Experiment, inputs: np.ndarray, targets: np.ndarray, task: str, **more
) -> Dataset:
    """Returns the data set of samples, those for training first.

    Args:
      experiment: its data flags.
      inputs: [samples, ...].
      targets: [samples, ...].
      task: task of the data set.
      **more: further fields.

    Raises:
      UserError: folds are asked for, or there are too few samples.
    """
    first = experiment.num_samples
    return Dataset.of_splits(
        splits.held_out(experiment, first),
        inputs[:first],
        targets[:first],
        task,
        test=(inputs[first:], targets[first:]),
        **more,
    )
