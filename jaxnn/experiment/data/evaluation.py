"""Which splits a run evaluates after each epoch, cut into batches for one pass over all
of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment

MOST_ROWS, MOST_NUMBERS = 4096, 2**16
"""Samples a rank in one evaluation batch, and input numbers in it, if the training
batch is no larger."""


class EvaluationSplit(NamedTuple):
    """Samples that are evaluated together.

    Attributes:
      name: "test", "validation" or "evaluated_train": its columns in metrics.csv begin
        with it.
      inputs: as in `Dataset`.
      targets: as in `Dataset`.
    """

    name: str
    inputs: np.ndarray
    targets: np.ndarray


def splits(experiment: Experiment, data: Dataset) -> list[EvaluationSplit]:
    """The test split, then the validation split if there is one, then the training
    split if asked for."""
    found = [EvaluationSplit("test", data.test_inputs, data.test_targets)]
    if data.validation_inputs is not None:
        found.append(
            EvaluationSplit(
                "validation", data.validation_inputs, data.validation_targets
            )
        )
    if experiment.evaluate_train:
        found.append(
            EvaluationSplit("evaluated_train", data.train_inputs, data.train_targets)
        )
    return found


def plan(
    experiment: Experiment, splits: Sequence[EvaluationSplit], world_size: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Batches over the concatenated splits; no batch holds samples of two.

    Args:
      experiment: knows the size of a training batch, which fits in memory.
      splits: one after the other.
      world_size: ranks that share each batch.

    Returns:
      ids: [batches, rows of all ranks] int32, padded with -1.
      owners: [batches] int, the index of each batch's split.
    """
    counts = [len(split.inputs) for split in splits]
    numbers = math.prod(splits[0].inputs.shape[1:])
    most = min(
        MOST_ROWS, max(MOST_NUMBERS // numbers, experiment.batch_size // world_size)
    )
    rows = min(most, -(-max(counts) // world_size)) * world_size
    first = np.cumsum([0, *counts])
    ids = [
        batches.global_batches(np.arange(start, start + count, dtype=np.int32), rows)
        for start, count in zip(first, counts)
    ]
    return np.concatenate(ids), np.repeat(
        np.arange(len(ids)), [len(part) for part in ids]
    )


def means(
    splits: Sequence[EvaluationSplit], owners: np.ndarray, sums: np.ndarray
) -> dict[str, np.ndarray]:
    """Split name -> (mean loss, mean metric), from the sums of each batch [batches, 2]."""
    return {
        split.name: sums[owners == index].sum(axis=0, dtype=np.float64)
        / len(split.inputs)
        for index, split in enumerate(splits)
    }
