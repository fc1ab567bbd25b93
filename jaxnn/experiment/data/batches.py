"""Seed and epoch -> order -> global batches -> one rank's slice. The same in both
stacks.

Sample ids are int32; -1 pads the last batch of an epoch to full size and carries weight
0, so that every step has one shape and no sample is dropped.
"""

from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.flags.config import Experiment

PADDING = -1


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Batches in an epoch; the last may be smaller."""
    return -(-num_samples // batch_size)


def total_steps(experiment: Experiment, num_samples: int) -> int:
    """Steps of all epochs, whether or not `--max_steps` cuts the run short: the
    schedule's length."""
    return experiment.epochs * steps_per_epoch(num_samples, experiment.batch_size)


def plan(experiment: Experiment, num_samples: int) -> list[int]:
    """Steps to take in each epoch: all of them, until `--max_steps` cuts the run short."""
    per_epoch, total = (
        steps_per_epoch(num_samples, experiment.batch_size),
        total_steps(experiment, num_samples),
    )
    total = min(total, experiment.max_steps or total)
    return [min(per_epoch, total - first) for first in range(0, total, per_epoch)]


def position(plan: Sequence[int], step: int) -> tuple[int, int]:
    """Where a run stands after so many steps: epochs finished, and steps taken of the
    one under way."""
    ends = np.cumsum([0, *plan])
    epochs = int(np.searchsorted(ends, step, side="right")) - 1
    return epochs, int(step - ends[epochs])


def samples_per_step(
    experiment: Experiment, num_samples: int, steps: int
) -> np.ndarray:
    """[steps] int: samples in each batch of an epoch that so many steps are taken of."""
    first = np.arange(steps) * experiment.batch_size
    return np.minimum(num_samples - first, experiment.batch_size)


def epoch_batches(experiment: Experiment, num_samples: int, epoch: int) -> np.ndarray:
    """[steps, batch] int32: the global batches of one epoch (0-based)."""
    return global_batches(
        epoch_order(num_samples, experiment.seed, epoch), experiment.batch_size
    )


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """[num_samples] int32: the permutation of one epoch (0-based), a function of (seed,
    epoch) alone."""
    return (
        np.random.default_rng([seed, epoch]).permutation(num_samples).astype(np.int32)
    )


def global_batches(order: np.ndarray, batch_size: int) -> np.ndarray:
    """Cuts an order into batches: [n] -> [steps, batch_size], padded with -1."""
    steps = steps_per_epoch(len(order), batch_size)
    batches = np.full(steps * batch_size, PADDING, np.int32)
    batches[: len(order)] = order
    return batches.reshape(steps, batch_size)


def rank_slice(
    batches: np.ndarray, rank: int, world_size: int, parts: int = 1
) -> np.ndarray:
    """One rank's columns of global batches: [steps, batch] -> [steps, batch /
    world_size].

    Of a batch that is computed in several parts a rank has its share of each, one after
    the other, so that the samples of a part do not depend on the number of ranks.
    """
    steps, rows = batches.shape[:-1], batches.shape[-1] // (parts * world_size)
    return batches.reshape(*steps, parts, world_size, rows)[..., rank, :].reshape(
        *steps, parts * rows
    )
