"""Generated data of any shape, to measure networks on without a download.

What is drawn can be learned, so a run on it is an experiment like any other.
"""

import math

import numpy as np

from jaxnn.experiment.catalogue import LANGUAGE
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.data.sources import both_splits, labels
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.memory import require_room

DISTANCE = 3.0
"""Of the mean of a class from 0, in standard deviations."""
FOLLOWED = 0.75
"""Share of tokens that follow the rule."""
FIRST_CHARACTER = 0x100
"""The tokens' characters begin here, beyond line breaks and controls."""
ROWS = 1024
"""Samples that are moved at a time."""
ITEM = 4
"""Bytes of a float32 or int32."""


def blobs(experiment: Experiment) -> Dataset:
    """Numbers x ~ N(m_k, 1) of `--sample_shape`, k uniform among `--num_classes`.

    The m_k are random vectors of length `DISTANCE` along the last axis, the same at
    every step or pixel. Classes of rows overlap, those of sequences and images can be
    told apart by an average. There are `--num_samples` training samples;
    `--test_fraction` of that number are drawn on top for testing.

    Raises:
      UserError: memory does not hold them, or folds are asked for.
    """
    shape, classes = experiment.sample_shape, experiment.num_classes
    count = both_splits.count(
        experiment, "--sample_shape, --num_samples", ITEM * math.prod(shape)
    )
    require_room(ITEM * shape[-1] * classes, "--num_classes", "the means of classes")
    rng = np.random.default_rng(experiment.split_seed)
    means = rng.standard_normal((classes, shape[-1]), dtype=np.float32)
    means *= DISTANCE / np.linalg.norm(means, axis=1, keepdims=True)
    drawn = rng.integers(0, classes, count)
    inputs = rng.standard_normal((count, *shape), dtype=np.float32)
    _add(inputs, means, drawn)
    found = labels.of_classes(drawn, tuple(map(str, range(classes))))
    columns = tuple(f"x{k}" for k in range(shape[0])) if len(shape) == 1 else ()
    return both_splits.split(
        experiment,
        inputs,
        found.targets,
        found.task,
        class_names=found.class_names,
        feature_names=columns,
    )


def _add(inputs: np.ndarray, means: np.ndarray, drawn: np.ndarray) -> None:
    """Adds to each sample the mean of its class, in place."""
    between = (1,) * (inputs.ndim - 2)
    # Some rows at a time: the means of all samples are as large as the samples.
    for start in range(0, len(inputs), ROWS):
        rows = slice(start, start + ROWS)
        inputs[rows] += means[drawn[rows]].reshape(-1, *between, means.shape[1])


def markov(experiment: Experiment) -> Dataset:
    """Sequences of `--sequence_length` tokens out of `--num_classes`.

    Three tokens of four are what one random permutation makes of the token before them,
    the others are uniform: a model that knows the permutation is right on `FOLLOWED` of
    them. Targets are the tokens that follow the inputs. Sizes are as of `blobs`.

    Raises:
      UserError: as `blobs` does.
    """
    steps, tokens = experiment.sequence_length, experiment.num_classes
    count = both_splits.count(
        experiment, "--sequence_length, --num_samples", ITEM * 4 * steps
    )
    rng = np.random.default_rng(experiment.split_seed)
    successor = rng.permutation(tokens).astype(np.int32)
    drawn = rng.integers(0, tokens, (count, steps + 1), dtype=np.int32)
    follows = rng.random((count, steps + 1)) < FOLLOWED
    for step in range(1, steps + 1):
        after = successor[drawn[:, step - 1]]
        drawn[:, step] = np.where(follows[:, step], after, drawn[:, step])
    vocabulary = tuple(chr(FIRST_CHARACTER + token) for token in range(tokens))
    return both_splits.split(
        experiment,
        drawn[:, :-1].copy(),
        drawn[:, 1:].copy(),
        LANGUAGE,
        class_names=vocabulary,
        description=Description(LANGUAGE, vocabulary=vocabulary),
    )
