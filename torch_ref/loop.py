"""Epoch loop: run, log, checkpoint, stop. Twin of jaxnn/loop.py."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
import torch

from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.results import divergence, run_log
from torch_ref import checkpoint, engine_readers, params_io, train_step
from torch_ref.epochs import Epoch, SteppedEpochs, Work
from torch_ref.recording import Recorder
from torch_ref.train_step import Batch, StepResult


class Run(NamedTuple):
    """What stays the same over the epochs of a run.

    Attributes:
      work: data, batches and schedule of all epochs.
      splits: evaluated after each epoch, the test split first.
      owners: [batches] index of the split that each evaluated batch belongs to.
      engine: as from `engine.initialize`; holds the model and all that a step changes.
      epochs: runs an epoch on this rank.
      recorder: records the first steps under `--record`.
      log: metrics and summary.
      workdir: run directory, or None on ranks that do not write.
      shared_workdir: run directory, on every rank; each writes files of a checkpoint.
      fp16_kernels: what computes FP16, for the summary.
    """

    work: Work
    splits: list[evaluation.EvaluationSplit]
    owners: np.ndarray
    engine: Any
    epochs: SteppedEpochs
    recorder: Recorder
    log: run_log.RunLog
    workdir: pathlib.Path | None
    shared_workdir: pathlib.Path
    fp16_kernels: str


class Kept(NamedTuple):
    """The network that a run keeps, on the host.

    Attributes:
      params: master parameters by name.
      batch_stats: running statistics by name; empty without batch normalization.
      outputs: [test samples, ...] outputs on the test split.
    """

    params: dict[str, np.ndarray]
    batch_stats: dict[str, np.ndarray]
    outputs: np.ndarray


def train(run: Run, before: int) -> Kept:
    """Runs the remaining epochs; under `--patience` stops early.

    Args:
      run: what stays the same.
      before: epochs that a resumed run has completed.

    Returns:
      The network after the last epoch, or after the best one under `--patience`.
    """
    experiment = run.work.experiment
    stopping = EarlyStopping(experiment.patience, experiment.min_delta)
    best = None
    epoch: Any = None
    for number in range(before, len(run.work.plan)):
        epoch = run.epochs.run(number)
        means = _log_epoch(run, number, epoch)
        # Every rank has the same means, and decides the same.
        if experiment.patience and stopping.improves(means["validation"][0]):
            best = _kept(run, epoch)
        _save(run, number)
        if stopping.is_over:
            break
    if experiment.patience:
        run.log.keep(stopping.best_epoch)
    return best or _kept(run, epoch)


def watched_tensors(engine: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns what must be finite, by name: the loss, then each gradient."""
    names = params_io.flax_names(engine.module)
    gradients = engine_readers.gradients(engine)
    return {
        "loss": loss,
        **{f"gradient of {names[name]}": array for name, array in gradients.items()},
    }


def stop_if_diverged(
    work: Work, engine: Any, batch: Batch, result: StepResult, step: int
) -> None:
    """Raises UserError if a loss or gradient is not finite, unless FP16 skipped it.

    Args:
      work: what is trained on.
      engine: as from `engine.initialize`.
      batch: this rank's rows of the step.
      result: what the step reported.
      step: index of the step in the run.
    """
    if not result.skipped and torch.isfinite(result.loss):
        return
    # FP16 continues at a lower scale; other precisions have none to lower.
    if work.experiment.precision == "fp16" and result.skipped:
        return
    tensors = {"loss": result.loss}
    if torch.isfinite(result.loss):
        # The step was skipped and its gradients are gone, but the parameters are still
        # those before it: a second backward pass finds the tensor.
        train_step.backward(
            work.experiment, engine, batch, step, work.rank, work.world_size
        )
        tensors = watched_tensors(engine, result.loss)
    finite = [bool(torch.isfinite(tensor).all()) for tensor in tensors.values()]
    divergence.stop_unless_finite(
        list(tensors), np.array([finite]), step, work.experiment
    )


def _log_epoch(run: Run, number: int, epoch: Epoch) -> dict[str, np.ndarray]:
    """Logs an epoch; returns {split: mean loss and metric}."""
    work = run.work
    reported = epoch.reported
    means = evaluation.means(run.splits, run.owners, epoch.sums)
    samples = batches.samples_per_step(
        work.experiment, len(work.train.inputs), len(reported.loss)
    )
    run.log.epoch(
        number,
        reported.loss,
        samples,
        reported.skipped,
        reported.learning_rate[-1],
        means,
        epoch.line,
    )
    if epoch.diagnosis:
        run.log.diagnose(epoch.diagnosis)
    run.log.timed()
    return means


def _save(run: Run, number: int) -> None:
    """Writes a checkpoint if one is due; every rank takes part."""
    every = run.work.experiment.checkpoint_every
    if every and (number + 1) % every == 0:
        checkpoint.save(run.shared_workdir, run.engine, run.work.experiment.keep)


def _kept(run: Run, epoch: Epoch) -> Kept:
    """Copies the network to the host; every rank takes part in the reading."""
    model = run.engine.module
    return Kept(
        params_io.to_flax(model, engine_readers.masters(run.engine)),
        params_io.stats_to_flax(model),
        epoch.outputs[: len(run.splits[0].inputs)],
    )
