"""What a run trains on, and its epochs: a loop over steps. Twin of jaxnn/epochs.py."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from jaxnn.experiment.data import batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.samples import Samples
from jaxnn.experiment.files.diagnostics import Diagnosis
from jaxnn.experiment.flags.config import Experiment
from torch_ref import gathering, ranks, train_step
from torch_ref.diagnosis import Diagnostician
from torch_ref.metrics import Metric
from torch_ref.recording import Recorder
from torch_ref.train_step import Batch, StepResult


class Work(NamedTuple):
    """What all epochs of a run go through. Epochs are numbered from 0.

    Attributes:
      experiment: what is trained.
      train: training split, on the host and unread.
      evaluated: evaluated splits, concatenated, on the host and unread.
      evaluated_ids: [batches, rows of all ranks] ids in `evaluated`.
      learning_rates: [updates] float32.
      device: this rank's.
      rank: index of this process.
      world_size: number of ranks.
      plan: steps of each epoch.
    """

    experiment: Experiment
    train: Samples
    evaluated: Samples
    evaluated_ids: np.ndarray
    learning_rates: np.ndarray
    device: torch.device
    rank: int
    world_size: int
    plan: list[int]

    def first_step(self, number: int) -> int:
        """Returns the index in the run of an epoch's first step."""
        # Only the last epoch may be shorter than the first, under --max_steps.
        return number * self.plan[0]

    def global_batches(self, number: int) -> np.ndarray:
        """Returns [steps, batch] sample ids of an epoch."""
        ids = batches.epoch_batches(self.experiment, len(self.train.inputs), number)
        return ids[: self.plan[number]]

    def shard(self, ids: np.ndarray) -> torch.Tensor:
        """Global training batches [..., batch] -> [..., rows] of this rank."""
        microbatches = self.experiment.accumulation_steps
        mine = batches.rank_slice(ids, self.rank, self.world_size, microbatches)
        return torch.from_numpy(mine).to(self.device)

    def evaluated_shard(self) -> torch.Tensor:
        """Returns [batches, rows] of this rank's evaluated ids."""
        # Evaluated batches are cut to fit in memory, and need no microbatches.
        mine = batches.rank_slice(self.evaluated_ids, self.rank, self.world_size)
        return torch.from_numpy(mine).to(self.device)


class Reported(NamedTuple):
    """What the steps of an epoch have reported.

    Attributes:
      loss: [steps] float32.
      learning_rate: [steps] float.
      skipped: [steps] bool.
    """

    loss: np.ndarray
    learning_rate: np.ndarray
    skipped: np.ndarray


class Epoch(NamedTuple):
    """What an epoch leaves beside the state, on the host.

    Attributes:
      reported: what its steps reported.
      sums: [batches, 2] of loss and metric over each evaluated batch.
      outputs: [rows of all batches, ...] of the evaluated batches.
      diagnosis: under `--diagnose`, unless its step has been recorded.
      line: [2] weight and bias after the epoch; None unless a line is fitted.
    """

    reported: Reported
    sums: np.ndarray
    outputs: np.ndarray
    diagnosis: Diagnosis | None = None
    line: np.ndarray | None = None


def make_work(
    experiment: Experiment,
    data: Dataset,
    splits: Sequence[evaluation.EvaluationSplit],
    learning_rates: np.ndarray,
    device: torch.device,
    rank: int,
    world_size: int,
) -> tuple[Work, np.ndarray]:
    """Returns the work of a run, and the split index [batches] of evaluated batches."""
    ids, owners = evaluation.plan(experiment, splits, world_size)
    work = Work(
        experiment,
        train=samples.training(data),
        evaluated=samples.evaluated(data, splits),
        evaluated_ids=ids,
        learning_rates=learning_rates,
        device=device,
        rank=rank,
        world_size=world_size,
        plan=batches.plan(experiment, len(data.train_inputs)),
    )
    return work, owners


class SteppedEpochs:
    """Epochs of single steps, whose rows are on the device or read from the host.

    Args:
      work: what they go through.
      engine: as from `engine.initialize`.
      metric: metric that accompanies the loss.
      recorder: records the steps that it wants.
      diagnostician: diagnoses those that it wants of the rest.
      watch: called after each step with its batch, its result and its index in the run;
        may raise.
    """

    def __init__(
        self,
        work: Work,
        engine: Any,
        metric: Metric,
        recorder: Recorder,
        diagnostician: Diagnostician,
        watch: Callable[[Batch, StepResult, int], None],
    ):
        self._work = work
        self._engine = engine
        self._metric = metric
        self._recorder = recorder
        self._diagnostician = diagnostician
        self._diagnosis = None
        self._watch = watch
        self._evaluated = work.evaluated_shard()
        # Data beyond --device_cache_mb stay on the host; `gather` reads their rows.
        is_large = samples.exceed_cache(work.experiment, work.train, work.evaluated)
        put = gathering.put_scaling if is_large else gathering.put
        self._train_set = put(work.train, work.device)
        self._evaluated_set = put(work.evaluated, work.device)

    def run(self, number: int) -> Epoch:
        """Trains and evaluates an epoch."""
        self._diagnosis = None
        reported = self._train(number)
        sums, outputs = self._evaluate()
        line = train_step.line_of(self._work.experiment, self._engine)
        return Epoch(reported, sums, outputs, self._diagnosis, line)

    def _train(self, number: int) -> Reported:
        work = self._work
        first = work.first_step(number)
        # A skipped step reads the same learning rate again.
        updates = first - self._engine.skipped_steps
        global_ids = work.global_batches(number)
        results = []
        # The last epoch's evaluation has left the model in evaluation mode.
        self._engine.train()
        for step, (ids, mine) in enumerate(
            zip(global_ids, work.shard(global_ids)), start=first
        ):
            batch = gathering.gather(self._train_set, mine)
            learning_rate = float(work.learning_rates[updates])
            result = self._step(batch, ids, step, learning_rate)
            self._watch(batch, result, step)
            results.append(result)
            updates += not result.skipped
        return _reported(results)

    def _step(
        self, batch: Batch, ids: np.ndarray, step: int, learning_rate: float
    ) -> StepResult:
        if self._recorder.wants(step):
            return self._recorder.run(self._engine, batch, ids, step, learning_rate)
        if self._diagnostician.wants(step):
            result, self._diagnosis = self._diagnostician.run(
                self._engine, batch, step, learning_rate
            )
            return result
        result, _ = train_step.train_step(
            self._work.experiment,
            self._engine,
            batch,
            step,
            learning_rate,
            self._work.rank,
            self._work.world_size,
        )
        return result

    def _evaluate(self) -> tuple[np.ndarray, np.ndarray]:
        """Each rank evaluates its rows of each batch, then all share the results."""
        work = self._work
        self._engine.eval()
        found = [
            train_step.eval_step(
                work.experiment,
                self._engine.module,
                self._metric,
                gathering.gather(self._evaluated_set, mine),
            )
            for mine in self._evaluated
        ]
        sums, outputs = (torch.stack(arrays) for arrays in zip(*found))
        # Once for all batches: each exchange between ranks has a cost of its own.
        sums = train_step.sum_over(sums, work.world_size)
        outputs = ranks.join_rows(outputs, work.world_size)
        return sums.cpu().numpy(), outputs.flatten(0, 1).cpu().numpy()


def _reported(results: list[StepResult]) -> Reported:
    return Reported(
        loss=torch.stack([result.loss for result in results]).cpu().numpy(),
        learning_rate=np.array([result.learning_rate for result in results]),
        skipped=np.array([result.skipped for result in results], bool),
    )
