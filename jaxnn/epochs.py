"""What an epoch goes through and what it leaves; epochs over data that stay on the
devices.

`streaming.StreamedEpochs` has the same methods, for data that do not fit.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import parallel
from jaxnn.experiment.data import batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.samples import Samples
from jaxnn.experiment.flags.config import Experiment
from jaxnn.gathering import Resident
from jaxnn.train_step import StepResult, TrainState


class Work(NamedTuple):
    """What all epochs of a run go through.

    Attributes:
      experiment: what is trained.
      train: the training split, on the host and unread.
      evaluated: every split that is evaluated, one after the other, on the host and
        unread.
      evaluated_ids: [batches, rows of all ranks] of them.
      test_batches: how many of those are the test split's; they come first.
      learning_rates: [updates] float32.
      devices: of this process.
      plan: steps of each epoch.
    """

    experiment: Experiment
    train: Samples
    evaluated: Samples
    evaluated_ids: np.ndarray
    test_batches: int
    learning_rates: np.ndarray
    devices: list[jax.Device]
    plan: list[int]

    def first_step(self, number: int) -> int:
        """Steps of the epochs before one (0-based): only the last may be cut short."""
        return number * self.plan[0]

    def global_batches(self, number: int, taken: int) -> np.ndarray:
        """[steps, batch] sample ids of an epoch (0-based) after the steps that have
        been taken."""
        ids = batches.epoch_batches(self.experiment, len(self.train.inputs), number)
        return ids[taken : self.plan[number]]

    def shard(self, ids: np.ndarray) -> np.ndarray:
        """Global training batches [..., batch] -> [devices, ..., rows] of this
        process's devices."""
        return parallel.shard(
            ids, len(self.devices), self.experiment.accumulation_steps
        )

    def evaluated_shard(self) -> np.ndarray:
        """[devices, batches, rows] of this process's devices."""
        return parallel.shard(self.evaluated_ids, len(self.devices))


class Epoch(NamedTuple):
    """What an epoch leaves beside the state, on the devices or on the host.

    Attributes:
      results: [devices, steps] of its training steps; None: no step was left.
      sums: [devices, batches, 2] of loss and metric over each evaluated batch; None:
        the epoch was cut short.
      outputs: [devices, batches, rows, ...] of the evaluated batches, those of the test
        split at least; None: the same.
    """

    results: StepResult | None
    sums: jax.Array | np.ndarray | None
    outputs: jax.Array | np.ndarray | None


def make_work(
    experiment: Experiment,
    data: Dataset,
    splits: Sequence[evaluation.EvaluationSplit],
    learning_rates: np.ndarray,
    devices: list[jax.Device],
) -> tuple[Work, np.ndarray]:
    """The work of a run, and the index of the split [batches] that each evaluated batch
    is of."""
    ids, owners = evaluation.plan(
        experiment, splits, len(devices) * jax.process_count()
    )
    work = Work(
        experiment,
        samples.training(data),
        samples.evaluated(data, splits),
        ids,
        int((owners == 0).sum()),
        learning_rates,
        devices,
        batches.plan(experiment, len(data.train_inputs)),
    )
    return work, owners


def make_resident(work: Work) -> Resident:
    """Puts the data set on every device."""
    return parallel.put(
        Resident(work.train.read(), work.evaluated.read(), work.learning_rates),
        work.devices,
    )


class ResidentEpochs:
    """Epochs over data that stay on every device: one call each, which the host need
    not wait for.

    Args:
      work: what they go through.
      train_step: of `train_step.make_train_step`.
      eval_step: of `train_step.make_eval_step`.
    """

    run_ahead = True

    def __init__(self, work: Work, train_step: Callable, eval_step: Callable):
        self._work, self._evaluated, self._resident = (
            work,
            work.evaluated_shard(),
            make_resident(work),
        )
        self._epoch = parallel.Compiled(
            parallel.make_epoch(train_step, eval_step, work.devices)
        )

    @property
    def compile_seconds(self) -> float:
        """Spent compiling so far."""
        return self._epoch.seconds

    def run(
        self, number: int, taken: int, state: TrainState
    ) -> tuple[TrainState, Epoch]:
        """Starts an epoch (0-based) after the steps of it that have been taken.

        Args:
          number: of the epoch.
          taken: steps.
          state: replicated; donated.
        """
        ids = self._work.shard(self._work.global_batches(number, taken))
        state, *arrays = self._epoch(state, ids, self._evaluated, self._resident)
        return state, Epoch(*arrays)
