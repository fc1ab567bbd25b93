"""Order and batches of an epoch, the same in both stacks.

(seed, epoch) -> permutation -> global batches -> the slice of one rank. Batches hold
int32 sample ids. The id -1 pads the last batch of an epoch to full size and has weight
0 in the loss, so that every step has one shape and no sample is dropped.
"""

from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import STEPS_BELOW, Experiment

PADDING = -1


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Number of batches in an epoch, including a smaller last one."""
    # Ceiling division.
    return -(-num_samples // batch_size)


def total_steps(experiment: Experiment, num_samples: int) -> int:
    """Number of steps in all epochs, regardless of `--max_steps`.

    It is the length of the learning rate schedule.

    Raises:
      UserError: there are more than a table of them can hold.
    """
    per_epoch = steps_per_epoch(num_samples, experiment.batch_size)
    total = experiment.epochs * per_epoch
    if total >= STEPS_BELOW:
        raise UserError(
            f"--epochs: {experiment.epochs} epochs of {per_epoch} steps are {total} "
            f"steps, which must be less than {STEPS_BELOW}; lower it"
        )
    return total


def plan(experiment: Experiment, num_samples: int) -> list[int]:
    """Returns the number of steps in each epoch, up to `--max_steps`."""
    per_epoch = steps_per_epoch(num_samples, experiment.batch_size)
    total = total_steps(experiment, num_samples)
    total = min(total, experiment.max_steps or total)
    return [min(per_epoch, total - first) for first in range(0, total, per_epoch)]


def position(plan: Sequence[int], step: int) -> tuple[int, int]:
    """Returns (epochs done, steps done in the next epoch) after `step` steps."""
    ends = np.cumsum([0, *plan])
    epochs = int(np.searchsorted(ends, step, side="right")) - 1
    return epochs, int(step - ends[epochs])


def samples_per_step(
    experiment: Experiment, num_samples: int, steps: int
) -> np.ndarray:
    """Returns [steps] int: samples without padding in the first batches of an epoch."""
    first = np.arange(steps) * experiment.batch_size
    return np.minimum(num_samples - first, experiment.batch_size)


def epoch_batches(experiment: Experiment, num_samples: int, epoch: int) -> np.ndarray:
    """Returns the [steps, batch] int32 global batches of an epoch, counted from 0."""
    order = epoch_order(num_samples, experiment.seed, epoch)
    return global_batches(order, experiment.batch_size)


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the [num_samples] int32 permutation of an epoch, counted from 0."""
    # A function of (seed, epoch) alone: a resumed run and the other stack draw the same
    # order.
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(num_samples).astype(np.int32)


def global_batches(order: np.ndarray, batch_size: int) -> np.ndarray:
    """Cuts an order into batches: [n] -> [steps, batch_size], padded with -1."""
    steps = steps_per_epoch(len(order), batch_size)
    batches = np.full(steps * batch_size, PADDING, np.int32)
    batches[: len(order)] = order
    return batches.reshape(steps, batch_size)


def rank_slice(
    batches: np.ndarray, rank: int, world_size: int, microbatches: int = 1
) -> np.ndarray:
    """Returns the columns of global batches that one rank processes.

    Args:
      batches: [..., batch] global batches.
      rank: index of the rank.
      world_size: number of ranks.
      microbatches: microbatches per batch. A rank has its share of each of them, one
        after the other.

    Returns:
      [..., batch / world_size] slice of the rank.
    """
    # The microbatch comes before the rank: which samples are in a microbatch does not
    # depend on the number of ranks.
    steps = batches.shape[:-1]
    rows = batches.shape[-1] // (microbatches * world_size)
    shares = batches.reshape(*steps, microbatches, world_size, rows)
    return shares[..., rank, :].reshape(*steps, microbatches * rows)
