"""What a run trains on, and its epochs over data that stay on the devices. Twin of
torch_ref/epochs.py."""

import operator
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from jaxnn import parallel
from jaxnn.devices import Devices
from jaxnn.diagnosis import Step
from jaxnn.experiment.data import batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.samples import Samples
from jaxnn.experiment.flags.config import Experiment
from jaxnn.gathering import Resident
from jaxnn.train_step import StepResult, TrainState

TOGETHER_SECONDS = 0.1
"""Time that the epochs of one call take: next to it the call's own is small, and the
log and a signal to stop do not wait long."""
TIMED_CALLS = 2
"""Calls that may be timed. The first starts threads as well: 50 ms for 12 of work."""
ENOUGH = 10
"""Epochs of a call next to which its own time is small: no reason to time another."""
TOGETHER_BYTES = 2**20
"""Largest bytes of their sample ids."""


class Work(NamedTuple):
    """What all epochs of a run go through. Epochs are numbered from 0.

    Attributes:
      experiment: what is trained.
      train: training split, on the host and unread.
      evaluated: evaluated splits, concatenated, on the host and unread.
      evaluated_ids: [batches, rows of all ranks] ids in `evaluated`.
      test_batches: number of evaluated batches of the test split, which come first.
      learning_rates: [updates] float32.
      devices: this process's.
      plan: steps of each epoch.
    """

    experiment: Experiment
    train: Samples
    evaluated: Samples
    evaluated_ids: np.ndarray
    test_batches: int
    learning_rates: np.ndarray
    devices: Devices
    plan: list[int]

    def first_step(self, number: int) -> int:
        """Returns the index in the run of an epoch's first step."""
        # Only the last epoch may be shorter than the first, under --max_steps.
        return number * self.plan[0]

    def global_batches(self, number: int, done: int) -> np.ndarray:
        """Returns [steps, batch] sample ids of an epoch's steps after `done` steps."""
        ids = batches.epoch_batches(self.experiment, len(self.train.inputs), number)
        return ids[done : self.plan[number]]

    def shard(self, ids: np.ndarray) -> np.ndarray:
        """Global training batches [..., batch] -> [devices, ..., rows] here."""
        microbatches = self.experiment.accumulation_steps
        return parallel.shard(ids, len(self.devices), microbatches)

    def evaluated_shard(self) -> np.ndarray:
        """Returns [devices, batches, rows] of this process's evaluated ids."""
        # Evaluated batches are cut to fit in memory, and need no microbatches.
        return parallel.shard(self.evaluated_ids, len(self.devices))


class Epoch(NamedTuple):
    """What an epoch leaves beside the state, on the devices or on the host.

    Attributes:
      results: StepResult of arrays [devices, steps]; None if no step was left.
      sums: [devices, batches, 2] of loss and metric over each evaluated batch; None if
        the epoch was cut short.
      outputs: [devices, batches, rows, ...] of the evaluated batches, those of the test
        split at least; None if the epoch was cut short.
    """

    results: StepResult | None
    sums: jax.Array | np.ndarray | None
    outputs: jax.Array | np.ndarray | None


class Several(NamedTuple):
    """What consecutive epochs of one call leave beside the state, on the devices.

    Attributes:
      count: number of the epochs.
      results: StepResult of arrays [devices, epochs or more, steps].
      sums: [devices, epochs or more, batches, 2], likewise as in `Epoch`.
      outputs: [devices, batches, rows, ...] of the last epoch.
    """

    count: int
    results: StepResult
    sums: jax.Array
    outputs: jax.Array

    def read(self) -> Iterator[Epoch]:
        """Yields each epoch, read to the host; the last one's outputs are not."""
        results, sums = parallel.first((self.results, self.sums))
        for number in range(self.count):
            # With an axis of devices, of which one is enough.
            place = (None, number)
            is_last = number + 1 == self.count
            yield Epoch(
                jax.tree.map(operator.itemgetter(place), results),
                sums[place],
                self.outputs if is_last else None,
            )


class Epochs(Protocol):
    """Runs the epochs of a run: `ResidentEpochs` or `streaming.StreamedEpochs`.

    Attributes:
      run_ahead: True if an epoch may be started before the host has read the last one.
    """

    run_ahead: bool

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling so far."""
        ...

    def run(
        self, number: int, done: int, state: TrainState
    ) -> tuple[TrainState, Epoch]:
        """Trains and evaluates an epoch, or what is left of it.

        Args:
          number: of the epoch.
          done: steps of the epoch that are completed already.
          state: replicated over the devices; donated.
        """
        ...


def make_work(
    experiment: Experiment,
    data: Dataset,
    splits: Sequence[evaluation.EvaluationSplit],
    learning_rates: np.ndarray,
    devices: Devices,
) -> tuple[Work, np.ndarray]:
    """Returns the work of a run, and the split index [batches] of evaluated batches."""
    world_size = len(devices) * jax.process_count()
    ids, owners = evaluation.plan(experiment, splits, world_size)
    work = Work(
        experiment,
        train=samples.training(data),
        evaluated=samples.evaluated(data, splits),
        evaluated_ids=ids,
        test_batches=int((owners == 0).sum()),
        learning_rates=learning_rates,
        devices=devices,
        plan=batches.plan(experiment, len(data.train_inputs)),
    )
    return work, owners


def make_resident(work: Work) -> Resident:
    """Copies the data set to every device."""
    resident = Resident(work.train.read(), work.evaluated.read(), work.learning_rates)
    return parallel.put(resident, work.devices)


class ResidentEpochs:
    """Epochs over data that stay on every device.

    An epoch, or several short ones, are a single call, for which the host does not
    wait.

    Args:
      work: what they go through.
      train_step: (state, batch, learning_rates) -> (state, StepResult, grads).
      eval_step: (params, batch_stats, batch) -> (sums, outputs).

    Attributes:
      most_together: epochs that `run_several` can run in one call.
    """

    # JAX dispatches asynchronously: a call returns before its epoch has run.
    run_ahead = True

    def __init__(self, work: Work, train_step: Step, eval_step: Callable):
        self._work = work
        self._evaluated = work.evaluated_shard()
        self._resident = make_resident(work)
        parts = (train_step, eval_step, work.devices)
        self._epoch = parallel.Compiled(parallel.make_epoch(*parts))
        self._epochs = parallel.Compiled(parallel.make_epochs(*parts))
        self.most_together = most_together(work)
        self._pace = 1
        self._calls = 0

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling so far."""
        return self._epoch.seconds + self._epochs.seconds

    def run(
        self, number: int, done: int, state: TrainState
    ) -> tuple[TrainState, Epoch]:
        """Starts an epoch; see `Epochs`."""
        ids = self._work.shard(self._work.global_batches(number, done))
        state, *arrays = self._epoch(state, ids, self._evaluated, self._resident)
        return state, Epoch(*arrays)

    def run_several(
        self, number: int, most: int, state: TrainState
    ) -> tuple[TrainState, Several]:
        """Starts whole epochs in one call: as many as take about `TOGETHER_SECONDS`.

        Args:
          number: of the first epoch.
          most: run no more than these.
          state: replicated over the devices; donated.
        """
        count = min(most, self._pace)
        # One shape for any count; the rest is not looked at.
        steps, batch = self._work.plan[number], self._work.experiment.batch_size
        ids = np.zeros((self.most_together, steps, batch), np.int32)
        for n in range(count):
            ids[n] = self._work.global_batches(number + n, 0)
        ids = self._work.shard(ids)
        start = time.perf_counter() - self._epochs.seconds
        state, *arrays = self._epochs(
            state, ids, np.int32(count), self._evaluated, self._resident
        )
        if self._calls < TIMED_CALLS and self._pace < ENOUGH:
            jax.block_until_ready(arrays)
            seconds = time.perf_counter() - self._epochs.seconds - start
            self._pace = max(int(count * TOGETHER_SECONDS / seconds), 1)
        self._calls += 1
        return state, Several(count, *arrays)


def most_together(work: Work) -> int:
    """Returns how many epochs may run in one call."""
    # Under `--patience` each epoch's network may be the one that is kept, and other
    # processes might time their epochs otherwise.
    if work.experiment.patience or jax.process_count() > 1:
        return 1
    bytes_each = work.plan[0] * work.experiment.batch_size * np.dtype(np.int32).itemsize
    return max(min(whole_epochs(work.plan), TOGETHER_BYTES // bytes_each), 1)


def whole_epochs(plan: list[int]) -> int:
    """Returns how many epochs have the steps of the first."""
    # Only the last may be shorter, under --max_steps.
    return len(plan) - (plan[-1] < plan[0])
