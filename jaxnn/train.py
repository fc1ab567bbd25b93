"""Trains one experiment in JAX.

    python -m jaxnn.train --flagfile=launch/experiments/breast_cancer.flags

Without flags it trains the linear regression. Exit code 2 on bad input or divergence.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxnn import checkpoint, models, parallel, recording, train_step
from jaxnn.experiment import batches, command_line, datasets, records, run_log, schedules, trace
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import Dataset
from jaxnn.metrics import METRICS
from jaxnn.optimizers import OPTIMIZERS, Optimizer
from jaxnn.train_step import Params, StepResult, TrainState

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
SMALL_LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000"


def main(experiment: Experiment) -> None:
    """Flags -> data -> model -> state -> epochs -> records."""
    clock = run_log.Clock()
    configure(experiment)
    data = datasets.load(experiment)
    devices = parallel.choose_devices(experiment)
    clock.end("data")

    model = models.build(experiment, data.num_outputs)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    state = start(experiment, model, optimizer, data)
    workdir = records.create_workdir(experiment, "jax")
    epochs = len(batches.plan(experiment, len(data.train_inputs)))
    epochs_done, state = resume(epochs, workdir, state) if experiment.resume else (0, state)
    metric_name, metric = METRICS[data.task]
    step = train_step.make_train_step(experiment, model, optimizer, parallel.AXIS)
    epoch = parallel.Compiled(parallel.make_epoch(
        step, train_step.make_eval_step(experiment, model, metric), devices))
    recorder = recording.Recorder(experiment, optimizer, parallel.make_recorded_step(step, devices), devices, workdir)
    log = run_log.RunLog(experiment, data, "jax", workdir, metric_name)
    if epochs_done:
        log.resume(epochs_done, skipped_steps=int(state.step - state.updates))
    learning_rates = schedules.learning_rates(experiment, batches.total_steps(experiment, len(data.train_inputs)))
    resident = parallel.make_resident(data, learning_rates, devices)
    state = parallel.replicate(state, devices)
    clock.end("init")

    with log:
        state, outputs = train(experiment, state, epochs_done, resident, epoch, recorder, log, workdir)
    clock.end("train", compile=epoch.seconds)

    names = [f"{device.platform} {device.device_kind}" for device in devices]
    log.finish(trace.flatten(state.params), outputs, clock, names, PACKAGES)


def configure(experiment: Experiment) -> None:
    """Sets what JAX holds process-wide: float64, full-precision matmuls, the persistent compilation cache."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SMALL_LOOPS}".strip()
    jax.config.update("jax_enable_x64", experiment.precision == "fp64")
    jax.config.update("jax_default_matmul_precision", "highest")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(datasets.cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def start(experiment: Experiment, model: nn.Module, optimizer: Optimizer, data: Dataset) -> TrainState:
    """The state before the first step, from `--init_params` or fresh."""
    if experiment.init_params:
        params = read_initial_params(experiment, model, data)
        return jax.jit(lambda params: train_step.initial_state(params, experiment, optimizer))(params)
    shape = data.train_inputs.shape[1:]
    return jax.jit(lambda seed: train_step.initial_state(
        train_step.initial_params(model, seed, shape), experiment, optimizer))(experiment.seed)


def read_initial_params(experiment: Experiment, model: nn.Module, data: Dataset) -> Params:
    """The parameters of `--init_params`.

    Raises:
      UserError: a tensor is missing, not the model's, or of another shape.
    """
    wanted = trace.flatten(jax.eval_shape(
        lambda: train_step.initial_params(model, 0, data.train_inputs.shape[1:])))
    given = records.read_arrays(experiment.init_params, "--init_params")
    for name in sorted(wanted.keys() | given.keys()):
        shapes = [tuple(side[name].shape) if name in side else None for side in (wanted, given)]
        if shapes[0] != shapes[1]:
            raise UserError(f"--init_params: {name} is {shapes[1] or 'missing'} in {experiment.init_params}, "
                            f"{shapes[0] or 'unknown'} in --model={experiment.model}")
    return trace.unflatten(given)


def resume(epochs: int, workdir: pathlib.Path, state: TrainState) -> tuple[int, TrainState]:
    """Epochs done and the state after them.

    Args:
      epochs: of the whole run, `--max_steps` considered.
      workdir: of the run.
      state: a state of the same shapes.

    Raises:
      UserError: no usable checkpoint, or nothing left to do.
    """
    epochs_done, state = checkpoint.restore(workdir, state)
    if epochs_done >= epochs:
        raise UserError(f"--resume: the run in {workdir} is complete, all {epochs_done} epochs of it")
    return epochs_done, state


class Started(NamedTuple):
    """An epoch that the devices work on, or have done.

    Attributes:
      number: 0-based.
      ids: [steps, batch] global batches.
      recorded: results of the steps that were recorded one by one.
      state: after the epoch, replicated; donated to the next.
      due: its copy for a checkpoint, or None.
      results, sums, outputs: as `parallel.make_epoch` returns them.
    """

    number: int
    ids: np.ndarray
    recorded: list[StepResult]
    state: TrainState
    due: TrainState | None
    results: StepResult
    sums: jax.Array
    outputs: jax.Array


def train(experiment: Experiment, state: TrainState, epochs_done: int, resident: parallel.Resident,
          epoch: parallel.Compiled, recorder: recording.Recorder, log: run_log.RunLog,
          workdir: pathlib.Path) -> tuple[TrainState, np.ndarray]:
    """Runs the epochs that are left.

    Args:
      state: replicated over the devices, as `parallel.replicate` does; donated.
      epochs_done: before.

    Returns:
      The final state and the test outputs, on the host.
    """
    samples, tests, count = len(resident.train_inputs), len(resident.test_inputs), len(state.step)
    names = ["loss", *(f"gradient of {name}" for name in trace.flatten(state.params))]
    test_ids = parallel.shard(batches.evaluation_batches(tests, batches.MOST_EVALUATED_AT_ONCE, count), count)
    plan = batches.plan(experiment, samples)

    def start_epochs(state: TrainState) -> Iterator[Started]:
        for number in range(epochs_done, len(plan)):
            ids = batches.epoch_batches(experiment, samples, number)[: plan[number]]
            state, recorded = recorder.run(state, ids, resident)
            state, *results = epoch(state, parallel.shard(ids[len(recorded) :], count), test_ids, resident)
            is_due = experiment.checkpoint_every and (number + 1) % experiment.checkpoint_every == 0
            yield Started(number, ids, recorded, state, parallel.first(state) if is_due else None, *results)

    for epoch_done in parallel.one_ahead(start_epochs(state)):
        results = recording.join(epoch_done.recorded, parallel.first(epoch_done.results))
        stop_if_diverged(results, names, sum(plan[: epoch_done.number]))
        log.epoch(epoch_done.number, results.loss, (epoch_done.ids != batches.PADDING).sum(axis=1), results.skipped,
                  results.learning_rate[-1], parallel.first(epoch_done.sums) / tests)
        if epoch_done.due:
            checkpoint.save(workdir, epoch_done.number + 1, epoch_done.due)
    return parallel.first(epoch_done.state), parallel.unshard(epoch_done.outputs, tests)


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
