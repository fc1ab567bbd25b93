"""Trains one experiment in JAX.

    python -m jaxnn.train --flagfile=launch/experiments/breast_cancer.flags

Without flags it trains the linear regression. Exit code 2 on bad input or divergence.
"""

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxnn import checkpoint, distributed, models, parallel, recording, sampling, train_step
from jaxnn.checkpoint import Best, Saved
from jaxnn.experiment import batches, command_line, datasets, evaluation, records, run_log, schedules, trace
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import LANGUAGE, Dataset, Signature
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.interruption import Interruption
from jaxnn.metrics import METRICS
from jaxnn.optimizers import OPTIMIZERS, Optimizer
from jaxnn.train_step import Params, StepResult, TrainState

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
SAMPLE_LENGTH = 400
ONE_LAYER = ("linear", "perceptron", "logistic")
SMALL_LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000"
"""Fuses the training loop of a tiny network on a CPU, four times faster; a ResNet's would be slower by a fifth."""


def main(experiment: Experiment) -> None:
    """Trains, among other processes if there are any."""
    clock = run_log.Clock()
    configure(experiment)
    with distributed.joined(experiment):
        run_experiment(experiment, clock)


def run_experiment(experiment: Experiment, clock: run_log.Clock) -> None:
    """Flags -> data -> model -> state -> epochs -> records."""
    data = datasets.load(experiment)
    devices = parallel.choose_devices(experiment)
    learning_rates = schedules.learning_rates(experiment, batches.total_steps(experiment, len(data.train_inputs)))
    clock.end("data")

    model = models.build(experiment, data.signature)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    state = start(experiment, model, optimizer, data.signature)
    workdir = records.create_workdir(experiment, "jax") if jax.process_index() == 0 else None
    epochs = len(batches.plan(experiment, len(data.train_inputs)))
    before = resume(epochs, workdir, state) if experiment.resume else Saved(0, state)
    metric_name, metric = METRICS[data.task]
    step = train_step.make_train_step(experiment, model, optimizer, parallel.AXIS)
    epoch = parallel.Compiled(parallel.make_epoch(
        step, train_step.make_eval_step(experiment, model, metric), devices))
    recorder = recording.Recorder(experiment, model, data.signature, optimizer, devices, workdir)
    log = run_log.RunLog(experiment, data, "jax", workdir, metric_name)
    losses = log.resume(before.epochs, int(before.state.step - before.state.updates)) if experiment.resume else []
    splits = evaluation.splits(experiment, data)
    resident = parallel.make_resident(data, splits, learning_rates, devices)
    checkpoints = checkpoint.Checkpoints(workdir, experiment.keep) if workdir else None
    run = Run(experiment, splits, resident, epoch, recorder, log, checkpoints, Interruption())
    before = before._replace(state=parallel.replicate(before.state, devices))
    clock.end("init")

    with log:
        trained = train(run, before, losses)
        if checkpoints:
            checkpoints.close()
    if trained is None:
        if workdir:
            print(f"stopped as asked; resume with {resume_command(workdir)}")
        return
    state, outputs = trained
    clock.end("train", compile=epoch.seconds)

    forward = train_step.make_forward(experiment, model)
    if data.task == LANGUAGE and workdir:
        write_sample(experiment, data, lambda tokens: forward(state.params, state.batch_stats, tokens), workdir)
    names = [f"{device.platform} {device.device_kind}" for device in devices] * jax.process_count()
    if state.batch_stats and workdir:
        records.write_params(workdir / records.BATCH_STATS, trace.flatten(state.batch_stats))
    log.finish(trace.flatten(state.params), outputs, clock, names, PACKAGES,
               predict=lambda inputs: np.asarray(jax.jit(forward)(state.params, state.batch_stats, inputs), np.float32))


def configure(experiment: Experiment) -> None:
    """Sets what JAX holds process-wide: float64, full-precision matmuls, the persistent compilation cache."""
    flags = os.environ.get("XLA_FLAGS", "")
    if experiment.model in ONE_LAYER and "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SMALL_LOOPS}".strip()
    jax.config.update("jax_enable_x64", experiment.precision == "fp64")
    jax.config.update("jax_default_matmul_precision", "highest")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(datasets.cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def start(experiment: Experiment, model: nn.Module, optimizer: Optimizer, signature: Signature) -> TrainState:
    """The state before the first step, from `--init_params` or fresh."""
    given = read_initial_params(experiment, model, signature) if experiment.init_params else {}

    def make(seed: jax.Array, given: Params) -> TrainState:
        variables = train_step.initial_variables(model, seed, signature)
        return train_step.initial_state({**variables, **given}, experiment, optimizer)

    return jax.jit(make)(experiment.seed, {"params": given} if given else {})


def read_initial_params(experiment: Experiment, model: nn.Module, signature: Signature) -> Params:
    """The parameters of `--init_params`.

    Raises:
      UserError: a tensor is missing, not the model's, or of another shape.
    """
    variables = jax.eval_shape(lambda: train_step.initial_variables(model, 0, signature))
    wanted = trace.flatten(variables["params"])
    given = records.read_arrays(experiment.init_params, "--init_params")
    for name in sorted(wanted.keys() | given.keys()):
        shapes = [tuple(side[name].shape) if name in side else None for side in (wanted, given)]
        if shapes[0] != shapes[1]:
            raise UserError(f"--init_params: {name} is {shapes[1] or 'missing'} in {experiment.init_params}, "
                            f"{shapes[0] or 'unknown'} in --model={experiment.model}")
    return trace.unflatten(given)


def resume(epochs: int, workdir: pathlib.Path | None, state: TrainState) -> Saved:
    """Where to go on: the last checkpoint that can be read, or the beginning if the run was stopped before the first.

    Args:
      epochs: of the whole run, `--max_steps` considered.
      workdir: of the run; None in a process that is told by process 0.
      state: a state of the same shapes.

    Raises:
      UserError: no usable checkpoint, or nothing left to do.
    """
    saved = Saved(0, state)
    if workdir:
        if (workdir / records.SUMMARY).exists():
            raise UserError(f"--resume: the run in {workdir} is complete; there is nothing left to do")
        saved = checkpoint.restore_saved(workdir, state, before=epochs) or saved
        checkpoint.forget_after(workdir, saved.epochs)
        print(f"going on after epoch {saved.epochs} of {epochs}", flush=True)
    if jax.process_count() > 1:
        saved = parallel.as_in_first(saved)
    return saved._replace(epochs=int(saved.epochs))


def resume_command(workdir: pathlib.Path) -> str:
    """What continues a run."""
    return f"python -m jaxnn.train --flagfile={workdir / records.FLAGS} --workdir={workdir} --resume"


class Run(NamedTuple):
    """What does not change while the epochs pass.

    Attributes:
      experiment: what is trained.
      splits: evaluated after each epoch, the test split first.
      resident: the data on the devices.
      epoch: the compiled epoch.
      recorder: takes the steps that are recorded.
      log: what is written and shown.
      checkpoints: of the run; None in a process that writes nothing.
      interruption: notices a signal to stop.
    """

    experiment: Experiment
    splits: list[evaluation.Split]
    resident: parallel.Resident
    epoch: parallel.Compiled
    recorder: recording.Recorder
    log: run_log.RunLog
    checkpoints: checkpoint.Checkpoints | None
    interruption: Interruption


class Started(NamedTuple):
    """An epoch that the devices work on, or have done.

    Attributes:
      number: 0-based.
      ids: [steps, batch] global batches.
      recorded: results of the steps that were recorded one by one.
      state: after the epoch, replicated; donated to the next.
      due: its copy for a checkpoint, or None.
      is_last: a signal asked for no more.
      results, sums, outputs: as `parallel.make_epoch` returns them.
    """

    number: int
    ids: np.ndarray
    recorded: list[StepResult]
    state: TrainState
    due: TrainState | None
    is_last: bool
    results: StepResult
    sums: jax.Array
    outputs: jax.Array


def train(run: Run, before: Saved, losses: Sequence[float]) -> tuple[TrainState, np.ndarray] | None:
    """Runs the epochs that are left, until the validation loss stops falling if `--patience` is set.

    Args:
      run: everything else.
      before: the epochs done, the state after them, replicated over the devices as `parallel.replicate` does and
        donated, and the best one.
      losses: [epochs done] on the validation split.

    Returns:
      The state to keep and its test outputs, on the host: the last epoch's, or the best under `--patience`. None if a
      signal stopped the run, whose last state is then a checkpoint.
    """
    experiment = run.experiment
    samples, count = len(run.resident.train_inputs), len(before.state.step)
    names = ["loss", *(f"gradient of {name}" for name in trace.flatten(before.state.params))]
    evaluated, owners = evaluation.plan(experiment, run.splits, count * jax.process_count())
    plan = batches.plan(experiment, samples)
    stopping, best = EarlyStopping(experiment.patience, experiment.min_delta), before.best
    for loss in losses if experiment.patience else ():
        stopping.improves(loss)
    started = start_epochs(run, before, parallel.shard(evaluated, count))
    # An epoch that may be the last must end before the next is started, which takes its state.
    ahead = parallel.one_ahead(started) if not experiment.patience else started
    is_over, is_asked = bool(experiment.patience and losses) and stopping.is_over, False
    for done in () if is_over else ahead:
        means = write_down(run, done, owners, names, sum(plan[: done.number]))
        if experiment.patience and stopping.improves(means["validation"][0]):
            best = Best(parallel.first(done.state), np.asarray(done.outputs))
        if done.due and run.checkpoints:
            run.checkpoints.save(Saved(done.number + 1, done.due, best))
        is_over = bool(experiment.patience) and stopping.is_over
        is_asked = done.is_last and done.number + 1 < len(plan) and not is_over
        if is_over or is_asked:
            break
    if is_asked:
        return None
    if experiment.patience:
        run.log.keep(stopping.best_epoch)
    state, outputs = best or (parallel.first(done.state), done.outputs)
    return state, parallel.unshard(outputs, len(run.splits[0].inputs))


def write_down(run: Run, done: Started, owners: np.ndarray, names: list[str],
               first_step: int) -> dict[str, np.ndarray]:
    """Logs an epoch; split -> its mean loss and metric. Raises UserError if training has diverged."""
    results = recording.join(done.recorded, parallel.first(done.results))
    stop_if_diverged(results, names, first_step)
    means = evaluation.means(run.splits, owners, parallel.first(done.sums))
    samples = (done.ids != batches.PADDING).sum(axis=1)
    run.log.epoch(done.number, results.loss, samples, results.skipped, results.learning_rate[-1], means)
    return means


def start_epochs(run: Run, before: Saved, evaluated: np.ndarray) -> Iterator[Started]:
    """Starts each epoch that is left when it is asked for, and none after a signal to stop."""
    experiment, samples, count = run.experiment, len(run.resident.train_inputs), len(before.state.step)
    plan, state = batches.plan(experiment, samples), before.state
    for number in range(before.epochs, len(plan)):
        ids = batches.epoch_batches(experiment, samples, number)[: plan[number]]
        state, recorded = run.recorder.run(state, ids, run.resident)
        mine = parallel.shard(ids[len(recorded) :], count, experiment.accumulation_steps)
        state, *results = run.epoch(state, mine, evaluated, run.resident)
        is_last = run.interruption.is_due(number)
        is_due = is_last or (experiment.checkpoint_every and (number + 1) % experiment.checkpoint_every == 0)
        yield Started(number, ids, recorded, state, parallel.first(state) if is_due else None, is_last, *results)
        if is_last:
            return


def write_sample(experiment: Experiment, data: Dataset, forward: Callable, workdir: pathlib.Path) -> None:
    """Draws a text from a trained language model into sample.txt, and shows how it begins."""
    text = sampling.generate(forward, data.class_names, experiment.sequence_length, "", SAMPLE_LENGTH)
    records.write_text(workdir / records.SAMPLE, text)
    print("sample:\n" + "\n".join(f"  {line}" for line in text.splitlines()))


def stop_if_diverged(results: StepResult, names: list[str], first_step: int) -> None:
    """Raises UserError on the first step whose loss or gradient is not finite, unless FP16 skipped it."""
    if results.finite.all():
        return
    run_log.stop_unless_finite(names, results.finite | results.skipped[:, None], first_step)
    if results.exhausted.any():
        step = int(results.exhausted.argmax())
        tensor = names[int((~results.finite[step]).argmax())]
        raise UserError(f"step {first_step + step}: {tensor} overflows at the smallest loss scale "
                        f"({results.loss_scale[step]:g}); try a smaller --learning_rate or --precision=fp32")


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp32")
