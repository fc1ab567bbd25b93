"""The epochs of a run, one after the other: what is written down of each, and when it
is over."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn import checkpoint, parallel, recording
from jaxnn.checkpoint import Best, Saved, Taken
from jaxnn.epochs import Epoch, ResidentEpochs, Work
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.experiment.results import run_log
from jaxnn.interruption import Interruption
from jaxnn.streaming import StreamedEpochs
from jaxnn.train_step import Params, StepResult, TrainState


class Run(NamedTuple):
    """What does not change while the epochs pass.

    Attributes:
      work: what each epoch goes through.
      splits: evaluated after each epoch, the test split first.
      owners: [batches] the split that each evaluated batch is of.
      names: [tensors] of those whose values a step looks at: the loss, then each
        gradient.
      epochs: run over that work.
      recorder: takes the steps that are recorded.
      log: what is written and shown.
      workdir: of the run; None in a process that writes nothing.
      checkpoints: in that folder, or None.
      interruption: notices a signal to stop.
    """

    work: Work
    splits: list[evaluation.EvaluationSplit]
    owners: np.ndarray
    names: list[str]
    epochs: ResidentEpochs | StreamedEpochs
    recorder: recording.Recorder
    log: run_log.RunLog
    workdir: pathlib.Path | None
    checkpoints: checkpoint.Checkpoints | None
    interruption: Interruption


class Started(NamedTuple):
    """An epoch that the devices work on, or have done.

    Attributes:
      number: 0-based.
      taken: what the steps reported that were taken before: resumed from a checkpoint,
        or recorded one by one.
      epoch: what the others leave.
      state: after the epoch, replicated; donated to the next.
      due: its copy for a checkpoint, or None.
      is_last: a signal asked for no more.
    """

    number: int
    taken: Taken
    epoch: Epoch
    state: TrainState
    due: TrainState | None
    is_last: bool


def train(
    run: Run, before: Saved, losses: Sequence[float]
) -> tuple[TrainState, np.ndarray] | None:
    """Runs the epochs that are left, until the validation loss stops falling if
    `--patience` is set.

    Args:
      run: everything else.
      before: where to go on; its state is replicated over the devices as
        `parallel.replicate` does, and donated.
      losses: [epochs done] on the validation split.

    Returns:
      The state to keep and its test outputs, on the host: the last epoch's, or the best
      under `--patience`. None if a signal stopped the run, whose last state is then a
      checkpoint.
    """
    experiment, done = run.work.experiment, None
    stopping, best = (
        EarlyStopping(experiment.patience, experiment.min_delta),
        before.best,
    )
    for loss in losses:
        stopping.improves(loss)
    for done in () if stopping.is_over else _started(run, before):
        reported = _reported(run, done)
        if done.epoch.sums is None:
            _save(run, done, best, reported)
            return None
        means = _write_down(run, done, reported)
        if experiment.patience and stopping.improves(means["validation"][0]):
            best = Best(parallel.first(done.state), np.asarray(done.epoch.outputs))
        _save(run, done, best)
        if stopping.is_over:
            break
        if done.is_last and done.number + 1 < len(run.work.plan):
            return None
    if experiment.patience:
        run.log.keep(stopping.best_epoch)
    state, outputs = best or (parallel.first(done.state), done.epoch.outputs)
    return state, parallel.unshard(outputs, len(run.splits[0].inputs))


def one_ahead(epochs: Iterator[Any]) -> Iterator[Any]:
    """Yields each epoch after the next has been started, so that the device works while
    the host reads and writes.

    No more than two calls are ever under way: many unread collective calls deadlock
    XLA's virtual CPU devices.
    """
    started = next(epochs)
    for following in epochs:
        yield started
        started = following
    yield started


def watched_tensors(params: Params) -> list[str]:
    """Names of the tensors that `StepResult.finite` is about."""
    return ["loss", *(f"gradient of {name}" for name in trace.flatten(params))]


def stop_if_diverged(results: StepResult, names: list[str], first_step: int) -> None:
    """Raises UserError on the first step whose loss or gradient is not finite, unless
    FP16 skipped it.

    Args:
      results: [steps] each.
      names: of `watched_tensors`.
      first_step: number of the first of the steps in the run.
    """
    if results.finite.all():
        return
    run_log.stop_unless_finite(
        names, results.finite | results.skipped[:, None], first_step
    )
    if results.exhausted.any():
        step = int(results.exhausted.argmax())
        tensor = names[int((~results.finite[step]).argmax())]
        raise UserError(
            f"step {first_step + step}: {tensor} overflows at the smallest loss scale "
            f"({results.loss_scale[step]:g}); try a smaller --learning_rate or "
            "--precision=fp32"
        )


def _started(run: Run, before: Saved) -> Iterator[Started]:
    epochs = _start_epochs(run, before)
    # An epoch that may be the last must end before the next is started, which takes its
    # state.
    return (
        one_ahead(epochs)
        if run.epochs.run_ahead and not run.work.experiment.patience
        else epochs
    )


def _start_epochs(run: Run, before: Saved) -> Iterator[Started]:
    """Starts each epoch that is left when it is asked for, and none after a signal to
    stop."""
    work, state, every = run.work, before.state, run.work.experiment.checkpoint_every
    first, _ = batches.position(work.plan, int(parallel.first(state.step)))
    for number in range(first, len(work.plan)):
        taken = before.taken if number == first else checkpoint.NONE_TAKEN
        state, taken = _record(run, state, number, taken)
        state, epoch = run.epochs.run(number, len(taken.loss), state)
        is_last = epoch.sums is None or run.interruption.is_due()
        is_due = is_last or (every and (number + 1) % every == 0)
        yield Started(
            number,
            taken,
            epoch,
            state,
            parallel.first(state) if is_due else None,
            is_last,
        )
        if is_last:
            return


def _record(
    run: Run, state: TrainState, number: int, taken: Taken
) -> tuple[TrainState, Taken]:
    """Takes the steps of an epoch that are to be recorded; they are added to those
    taken before."""
    if not run.recorder.left:
        return state, taken
    count = len(taken.loss)
    state, results = run.recorder.run(state, run.work.global_batches(number, count))
    stop_if_diverged(results, run.names, run.work.first_step(number) + count)
    return state, _added(taken, results)


def _reported(run: Run, done: Started) -> Taken:
    """What all steps of an epoch so far reported. Raises UserError if training has
    diverged."""
    if done.epoch.results is None:
        return done.taken
    results = parallel.first(done.epoch.results)
    stop_if_diverged(
        results, run.names, run.work.first_step(done.number) + len(done.taken.loss)
    )
    return _added(done.taken, results)


def _added(taken: Taken, results: StepResult) -> Taken:
    return Taken(
        *(
            np.concatenate([before, getattr(results, name)])
            if len(before)
            else getattr(results, name)
            for name, before in taken._asdict().items()
        )
    )


def _write_down(run: Run, done: Started, reported: Taken) -> dict[str, np.ndarray]:
    """Logs an epoch; split -> its mean loss and metric."""
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
    )
    return means


def _save(
    run: Run, done: Started, best: Best | None, taken: Taken = checkpoint.NONE_TAKEN
) -> None:
    """Writes a checkpoint if one is due."""
    if done.due and run.checkpoints:
        run.checkpoints.save(Saved(done.due, best, taken))
