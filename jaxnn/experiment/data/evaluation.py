"""Evaluation after each epoch: which splits, in which batches, and their means."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.lazy_rows import Rows
from jaxnn.experiment.flags.config import Experiment

# Limits of an evaluation batch per rank: samples, and numbers in their inputs. A
# training batch fits into memory with its gradients, so that its size is allowed even
# beyond MOST_NUMBERS.
MOST_ROWS = 4096
MOST_NUMBERS = 2**16


class EvaluationSplit(NamedTuple):
    """Samples that are evaluated together.

    Attributes:
      name: "test", "validation" or "evaluated_train", the prefix of its columns in
        metrics.csv.
      inputs: as in `Dataset`.
      targets: as in `Dataset`.
    """

    name: str
    inputs: np.ndarray | Rows
    targets: np.ndarray


def splits(experiment: Experiment, data: Dataset) -> list[EvaluationSplit]:
    """Returns the splits to evaluate: test, then validation and training if wanted."""
    found = [EvaluationSplit("test", data.test_inputs, data.test_targets)]
    if data.validation_inputs is not None and data.validation_targets is not None:
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
    """Cuts the concatenated splits into batches, each within one split.

    Args:
      experiment: its batch size bounds that of evaluation.
      splits: splits in the order of their concatenation.
      world_size: number of ranks that share each batch.

    Returns:
      ids: [batches, rows of all ranks] int32, padded with -1.
      owners: [batches] int, index of the split of each batch.
    """
    counts = [len(split.inputs) for split in splits]
    numbers = math.prod(splits[0].inputs.shape[1:])
    most = most_rows(numbers, experiment.batch_size // world_size)
    # No more rows than the largest split has, shared by the ranks.
    rows = min(most, -(-max(counts) // world_size)) * world_size

    first = np.cumsum([0, *counts])
    ids = [
        batches.global_batches(np.arange(start, start + count, dtype=np.int32), rows)
        for start, count in zip(first, counts)
    ]
    owners = np.repeat(np.arange(len(ids)), [len(of_split) for of_split in ids])
    return np.concatenate(ids), owners


def most_rows(numbers: int, training_rows: int) -> int:
    """Returns the most rows of an evaluation batch on a rank.

    Args:
      numbers: in the inputs of a sample.
      training_rows: rows of a training batch on a rank.
    """
    return min(MOST_ROWS, max(MOST_NUMBERS // numbers, training_rows))


def means(
    splits: Sequence[EvaluationSplit], owners: np.ndarray, sums: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns split name -> [mean loss, mean metric].

    Args:
      splits: evaluated splits.
      owners: [batches] int, from `plan`.
      sums: [batches, 2] sums of loss and metric over the samples of a batch.
    """
    return {
        split.name: sums[owners == index].sum(axis=0, dtype=np.float64)
        / len(split.inputs)
        for index, split in enumerate(splits)
    }
