"""Epoch loop: run, log, checkpoint, stop. Twin of torch_ref/loop.py."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxnn import checkpoint, freezing, parallel, train_step
from jaxnn.checkpoint import Best, Reported, Saved
from jaxnn.epochs import (
    Epoch,
    Epochs,
    ResidentEpochs,
    Several,
    Work,
    whole_epochs,
)
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.diagnosis import due_step
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.experiment.files.diagnostics import Diagnosis
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import divergence, run_log
from jaxnn.interruption import Interruption
from jaxnn.recording import Recorder
from jaxnn.train_step import Params, StepResult, TrainState


class Run(NamedTuple):
    """What stays the same over the epochs of a run.

    Attributes:
      work: data, batches and schedule of all epochs.
      splits: evaluated after each epoch, the test split first.
      owners: [batches] index of the split that each evaluated batch belongs to.
      model: network.
      epochs: runs an epoch on the devices.
      recorder: records the first steps under `--record`.
      log: metrics and summary.
      workdir: run directory, or None on processes that do not write.
      names: [1 + tensors] names of what `StepResult.finite` covers.
      losses: validation loss of each epoch that a resumed run has completed.
      checkpoints: writes checkpoints, or None on processes that do not write.
      interruption: notices a signal to stop.
    """

    work: Work
    splits: list[evaluation.EvaluationSplit]
    owners: np.ndarray
    model: nn.Module
    epochs: Epochs
    recorder: Recorder
    log: run_log.RunLog
    workdir: pathlib.Path | None
    names: list[str]
    losses: list[float]
    checkpoints: checkpoint.Checkpoints | None
    interruption: Interruption


class Kept(NamedTuple):
    """The network that a run keeps, on the host.

    Attributes:
      params: master parameters.
      batch_stats: running statistics; empty without batch normalization.
      outputs: [test samples, ...] outputs on the test split.
    """

    params: Params
    batch_stats: Params
    outputs: np.ndarray


class Started(NamedTuple):
    """An epoch that the devices work on, or have completed.

    Attributes:
      number: of the epoch, from 0.
      before: what earlier steps of the epoch reported: recorded one by one, or resumed
        from a checkpoint.
      epoch: what the remaining steps leave.
      state: state after the epoch, replicated; donated to the next one.
      due: its copy for a checkpoint, or None.
      is_last: True if a signal asked to stop after it.
      line: [2] weight and bias of a fitted line, if no step of the epoch was left that
        would have reported them.
      together: number of epochs in its call.
    """

    number: int
    before: Reported
    epoch: Epoch
    state: TrainState
    due: TrainState | None
    is_last: bool
    line: jax.Array | None = None
    together: int = 1


def train(run: Run, before: Saved) -> Kept | None:
    """Runs the remaining epochs; under `--patience` stops early.

    Args:
      run: what stays the same.
      before: where to start; its state is replicated over the devices, and donated.

    Returns:
      The network after the last epoch, or after the best one under `--patience`. None
      if a signal stopped the run, whose last state is then a checkpoint.
    """
    experiment = run.work.experiment
    stopping = EarlyStopping(experiment.patience, experiment.min_delta)
    best = before.best
    for loss in run.losses:
        stopping.improves(loss)
    done = None
    # A run that stopped early may have been killed before it wrote its summary.
    for done in () if stopping.is_over else _started(run, before):
        reported = _reported(run, done)
        # The signal came within the epoch, whose steps so far go into the checkpoint.
        if done.epoch.sums is None:
            _save(run, done, best, reported)
            return None
        means = _log_epoch(run, done, reported)
        if experiment.patience and stopping.improves(means["validation"][0]):
            best = Best(parallel.first(done.state), np.asarray(done.epoch.outputs))
        _save(run, done, best)
        if stopping.is_over:
            break
        if done.is_last and done.number + 1 < len(run.work.plan):
            return None
    if experiment.patience:
        run.log.keep(stopping.best_epoch)
    if best is None:
        # A run that has kept no epoch has at least one left.
        assert done
        best = Best(parallel.first(done.state), np.asarray(done.epoch.outputs))
    return _kept(run, best)


def one_ahead(epochs: Iterator[Any]) -> Iterator[Any]:
    """Yields each epoch after the next one has been started.

    So the devices work while the host reads and writes.
    """
    # Never more than two calls at once: many unread collective calls deadlock XLA's
    # virtual CPU devices.
    started = next(epochs)
    for following in epochs:
        yield started
        started = following
    yield started


def watched_tensors(experiment: Experiment, params: Params) -> list[str]:
    """Returns the names of what must be finite: the loss, then each gradient."""
    names = trace.flatten(freezing.trained(experiment, params))
    return ["loss", *(f"gradient of {name}" for name in names)]


def stop_if_diverged(
    results: StepResult,
    names: list[str],
    first_step: int,
    experiment: Experiment = divergence.COMMON,
) -> None:
    """Raises UserError if a loss or gradient is not finite, unless FP16 skipped it.

    Args:
      results: StepResult of arrays [steps].
      names: as from `watched_tensors`.
      first_step: index of the first of the steps in the run.
      experiment: its flags may be the cause.
    """
    if results.finite.all():
        return
    allowed = np.asarray(results.finite | results.skipped[:, None])
    divergence.stop_unless_finite(names, allowed, first_step, experiment)
    if results.exhausted.any():
        step = int(results.exhausted.argmax())
        tensor = names[int((~results.finite[step]).argmax())]
        raise UserError(
            f"step {first_step + step}: {tensor} overflows at the smallest loss scale "
            f"({results.loss_scale[step]:g}); try "
            "--preprocess=standardize, --precision=bf16 or fp32, or a smaller "
            "--learning_rate"
        )


def _started(run: Run, before: Saved) -> Iterator[Started]:
    """Yields each remaining epoch, ahead of the host where that is possible."""
    calls = _start_calls(run, before)
    # An epoch that may be the last must end before the next is started, which takes its
    # state.
    if run.epochs.run_ahead and not run.work.experiment.patience:
        calls = one_ahead(calls)
    for read in calls:
        yield from read()


def _start_calls(run: Run, before: Saved) -> Iterator[Callable[[], Iterable[Started]]]:
    """Starts one or several of the remaining epochs when asked for, none after a signal
    to stop; yields what reads them."""
    work = run.work
    state = before.state
    number, _ = batches.position(work.plan, int(parallel.first(state.step)))
    reported = before.reported
    while number < len(work.plan):
        state, reported = _record(run, state, number, reported)
        if together := _together(run, number, reported):
            epochs, most = together
            state, several = epochs.run_several(number, most, state)
            last = number + several.count - 1
            is_last, due = _look(run, last, state)
            read = functools.partial(_read, several, number, state, due, is_last)
        else:
            line = _line_before(run, number, reported, state)
            state, epoch = run.epochs.run(number, len(reported.loss), state)
            last = number
            is_last, due = _look(run, last, state, is_cut=epoch.sums is None)
            done = [Started(number, reported, epoch, state, due, is_last, line)]
            read = functools.partial(iter, done)
        yield read
        if is_last:
            return
        number = last + 1
        reported = checkpoint.NOTHING_REPORTED


def _together(
    run: Run, number: int, reported: Reported
) -> tuple[ResidentEpochs, int] | None:
    """Returns what runs epochs together in one call, and how many at most: those up to
    the next checkpoint, of the same steps. None where they run one by one.
    """
    epochs, plan = run.epochs, run.work.plan
    if len(reported.loss) or not isinstance(epochs, ResidentEpochs):
        return None
    every = run.work.experiment.checkpoint_every or len(plan)
    # One epoch is another program, which may round otherwise and takes as long to
    # compile: neither the time of an epoch nor a resumption may choose between the two.
    if min(epochs.most_together, every) < 2:
        return None
    most = min(
        epochs.most_together, whole_epochs(plan) - number, every - number % every
    )
    return (epochs, most) if most else None


def _look(
    run: Run, number: int, state: TrainState, is_cut: bool = False
) -> tuple[bool, TrainState | None]:
    """Returns whether to stop after an epoch, and its state if that is to be saved.

    Args:
      run: what stays the same.
      number: of the epoch.
      state: after it, replicated.
      is_cut: True if a signal cut the epoch short.
    """
    every = run.work.experiment.checkpoint_every
    # Asked equally often on all processes, which then stop together.
    is_last = is_cut or run.interruption.is_due()
    is_due = is_last or (every and (number + 1) % every == 0)
    # Copied now: the next epoch takes the state's memory.
    return is_last, parallel.first(state) if is_due else None


def _read(
    several: Several,
    first: int,
    state: TrainState,
    due: TrainState | None,
    is_last: bool,
) -> Iterator[Started]:
    """Yields the epochs of one call; `due` and `is_last` are said of the last."""
    last = first + several.count - 1
    for number, epoch in enumerate(several.read(), first):
        ends = (due, is_last) if number == last else (None, False)
        yield Started(
            number,
            checkpoint.NOTHING_REPORTED,
            epoch,
            state,
            *ends,
            together=several.count,
        )


def _record(
    run: Run, state: TrainState, number: int, reported: Reported
) -> tuple[TrainState, Reported]:
    """Runs the steps of an epoch that are to be recorded, and adds what they report."""
    if not run.recorder.left:
        return state, reported
    done = len(reported.loss)
    state, results = run.recorder.run(state, run.work.global_batches(number, done))
    first = run.work.first_step(number) + done
    stop_if_diverged(results, run.names, first, run.work.experiment)
    return state, _extended(reported, results)


def _reported(run: Run, done: Started) -> Reported:
    """Returns what all steps of an epoch reported; raises UserError on divergence."""
    if done.epoch.results is None:
        return done.before
    results = parallel.first(done.epoch.results)
    first = run.work.first_step(done.number) + len(done.before.loss)
    stop_if_diverged(results, run.names, first, run.work.experiment)
    return _extended(done.before, results)


def _extended(reported: Reported, results: StepResult) -> Reported:
    return Reported(
        loss=np.concatenate([reported.loss, results.loss]),
        learning_rate=np.concatenate([reported.learning_rate, results.learning_rate]),
        skipped=np.concatenate([reported.skipped, results.skipped]),
    )


def _log_epoch(run: Run, done: Started, reported: Reported) -> dict[str, np.ndarray]:
    """Logs an epoch; returns {split: mean loss and metric}."""
    work = run.work
    means = evaluation.means(run.splits, run.owners, parallel.first(done.epoch.sums))
    samples = batches.samples_per_step(
        work.experiment, len(work.train.inputs), len(reported.loss)
    )
    run.log.epoch(
        done.number,
        reported.loss,
        samples,
        reported.skipped,
        reported.learning_rate[-1],
        means,
        _line(done),
    )
    diagnosis = _diagnosis(run, done)
    if diagnosis:
        run.log.diagnose(diagnosis)
    run.log.timed(done.together, run.epochs.compile_seconds)
    return means


def _line_before(
    run: Run, number: int, reported: Reported, state: TrainState
) -> jax.Array | None:
    """Returns the line before an epoch's rest if no step is left in it, else None."""
    if len(reported.loss) < run.work.plan[number]:
        return None
    return train_step.line_of(run.work.experiment, parallel.first(state.params))


def _line(done: Started) -> np.ndarray | jax.Array | None:
    """Returns [2] weight and bias after an epoch; None unless a line is fitted."""
    results = done.epoch.results
    if results is None or results.line is None:
        return done.line
    lines = parallel.first(results.line)
    return lines[-1] if len(lines) else done.line


def _diagnosis(run: Run, done: Started) -> Diagnosis | None:
    """Returns the diagnosis of an epoch; None without one, or if its step has been
    recorded, which is not diagnosed."""
    results = done.epoch.results
    if results is None or results.diagnosis is None:
        return None
    step = due_step(run.work.plan, done.number)
    place = step - run.work.first_step(done.number) - len(done.before.loss)
    if place < 0:
        return None
    tables, scales = parallel.first((results.diagnosis, results.loss_scale))
    return Diagnosis(step, tables[place], float(scales[place]))


def _save(
    run: Run,
    done: Started,
    best: Best | None,
    reported: Reported = checkpoint.NOTHING_REPORTED,
) -> None:
    """Writes a checkpoint if one is due."""
    if done.is_last:
        run.interruption.obeyed()
    if done.due and run.checkpoints:
        run.checkpoints.save(Saved(done.due, best, reported))


def _kept(run: Run, best: Best) -> Kept:
    outputs = parallel.unshard(best.outputs, len(run.splits[0].inputs))
    return Kept(best.state.params, best.state.batch_stats, outputs)
