"""Trains one experiment in JAX.

    python -m jaxnn.train --flagfile=launch/experiments/breast_cancer.flags

Without flags it trains the linear regression. Exit code 2 on bad input or divergence.
"""

import os
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from jaxnn import (
    checkpoint,
    decoding,
    distributed,
    epochs,
    models,
    parallel,
    recording,
    train_step,
)
from jaxnn.checkpoint import Saved, Taken
from jaxnn.devices import choose_devices
from jaxnn.epochs import ResidentEpochs, Work
from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.data.cache import cache_folder
from jaxnn.experiment.data.dataset import LANGUAGE, Dataset, Signature
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.samples import exceed_cache
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, trace
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from jaxnn.interruption import Interruption
from jaxnn.loop import Run, stop_if_diverged, train, watched_tensors
from jaxnn.metrics import METRICS, Metric
from jaxnn.optimizers import OPTIMIZERS, Optimizer
from jaxnn.streaming import StreamedEpochs
from jaxnn.train_step import Params, TrainState

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
SAMPLE_LENGTH = 400
ONE_LAYER = ("linear", "perceptron", "logistic")
SMALL_LOOPS = (
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000"
)
"""Fuses the training loop of a tiny network on a CPU, four times faster; a ResNet's
would be slower by a fifth."""


def main(experiment: Experiment) -> None:
    """Trains, among other processes if there are any."""
    clock = run_log.Clock()
    configure(experiment)
    with distributed.joined(experiment):
        run_experiment(experiment, clock)


def run_experiment(experiment: Experiment, clock: run_log.Clock) -> None:
    """Flags -> data -> model -> state -> epochs -> records."""
    data = load_dataset(experiment)
    distributed.agree_on_data(data)
    clock.end("data")
    model = models.build(experiment, data.signature)
    run, before, losses = assemble(experiment, data, model)
    clock.end("init")
    with run.log:
        trained = train(run, before, losses)
        if run.checkpoints:
            run.checkpoints.close()
    if trained:
        clock.end("train", compile=run.epochs.compile_seconds)
        finish(run, data, model, *trained, clock)
    elif run.workdir:
        print(f"stopped as asked; resume with {resume_command(run.workdir)}")


def assemble(
    experiment: Experiment, data: Dataset, model: nn.Module
) -> tuple[Run, Saved, list[float]]:
    """What trains, where it begins, and the losses of the epochs before on the
    validation split."""
    devices, splits, samples = (
        choose_devices(experiment),
        evaluation.splits(experiment, data),
        len(data.train_inputs),
    )
    learning_rates = schedules.learning_rates(
        experiment, batches.total_steps(experiment, samples)
    )
    work, owners = epochs.make_work(experiment, data, splits, learning_rates, devices)
    optimizer, (metric_name, metric) = (
        OPTIMIZERS[experiment.optimizer](experiment),
        METRICS[data.task],
    )
    state = start(experiment, model, optimizer, data.signature)
    names, interruption = watched_tensors(state.params), Interruption()
    runner = make_epochs(work, model, optimizer, metric, interruption, names)
    workdir = (
        artifacts.create_workdir(experiment, "jax")
        if jax.process_index() == 0
        else None
    )
    before = resume(work.plan, workdir, state) if experiment.resume else Saved(state)
    recorder = recording.Recorder(
        work, model, data.signature, optimizer, int(before.state.step), workdir
    )
    log = run_log.RunLog(experiment, data, "jax", workdir, metric_name)
    losses = resume_log(log, before, work.plan) if experiment.resume else []
    checkpoints = checkpoint.Checkpoints(workdir, experiment.keep) if workdir else None
    run = Run(
        work,
        splits,
        owners,
        names,
        runner,
        recorder,
        log,
        workdir,
        checkpoints,
        interruption,
    )
    return run, before._replace(state=parallel.replicate(before.state, devices)), losses


def finish(
    run: Run,
    data: Dataset,
    model: nn.Module,
    state: TrainState,
    outputs: np.ndarray,
    clock: run_log.Clock,
) -> None:
    """Writes what a run leaves at its end, of the state that is kept and its test
    outputs."""
    experiment, forward = (
        run.work.experiment,
        train_step.make_forward(run.work.experiment, model),
    )
    if data.task == LANGUAGE and run.workdir:
        write_sample(
            experiment,
            data,
            lambda tokens: forward(state.params, state.batch_stats, tokens),
            run.workdir,
        )
    if state.batch_stats and run.workdir:
        artifacts.write_params(
            run.workdir / artifacts.BATCH_STATS, trace.flatten(state.batch_stats)
        )
    devices = [
        f"{device.platform} {device.device_kind}" for device in run.work.devices
    ] * jax.process_count()
    run.log.finish(
        trace.flatten(state.params),
        outputs,
        clock,
        devices,
        PACKAGES,
        predict=lambda inputs: np.asarray(
            jax.jit(forward)(state.params, state.batch_stats, inputs), np.float32
        ),
    )


def configure(experiment: Experiment) -> None:
    """Sets what JAX holds process-wide: float64, full-precision matmuls, the persistent
    compilation cache."""
    flags = os.environ.get("XLA_FLAGS", "")
    if experiment.model in ONE_LAYER and "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SMALL_LOOPS}".strip()
    jax.config.update("jax_enable_x64", experiment.precision == "fp64")
    jax.config.update("jax_default_matmul_precision", "highest")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def start(
    experiment: Experiment, model: nn.Module, optimizer: Optimizer, signature: Signature
) -> TrainState:
    """The state before the first step, from `--init_params` or fresh."""
    given = (
        read_initial_params(experiment, model, signature)
        if experiment.init_params
        else {}
    )

    def make(seed: jax.Array, given: Params) -> TrainState:
        variables = train_step.initial_variables(model, seed, signature)
        return train_step.initial_state({**variables, **given}, experiment, optimizer)

    return jax.jit(make)(experiment.seed, {"params": given} if given else {})


def read_initial_params(
    experiment: Experiment, model: nn.Module, signature: Signature
) -> Params:
    """The parameters of `--init_params`.

    Raises:
      UserError: a tensor is missing, not the model's, or of another shape.
    """
    variables = jax.eval_shape(
        lambda: train_step.initial_variables(model, 0, signature)
    )
    wanted = trace.flatten(variables["params"])
    given = artifacts.read_arrays(experiment.init_params, "--init_params")
    for name in sorted(wanted.keys() | given.keys()):
        shapes = [
            tuple(side[name].shape) if name in side else None
            for side in (wanted, given)
        ]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"--init_params: {name} is {shapes[1] or 'missing'} in "
                f"{experiment.init_params}, {shapes[0] or 'unknown'} in "
                f"--model={experiment.model}"
            )
    return trace.unflatten(given)


def make_epochs(
    work: Work,
    model: nn.Module,
    optimizer: Optimizer,
    metric: Metric,
    interruption: Interruption,
    names: list[str],
) -> ResidentEpochs | StreamedEpochs:
    """The epochs of a run, over data that stay on the devices if they fit."""
    step = train_step.make_train_step(work.experiment, model, optimizer, parallel.AXIS)
    eval_step = train_step.make_eval_step(work.experiment, model, metric)
    if not exceed_cache(work.experiment, work.train, work.evaluated):
        return ResidentEpochs(work, step, eval_step)
    return StreamedEpochs(
        work,
        step,
        eval_step,
        lambda first, results: stop_if_diverged(results, names, first),
        interruption.is_due,
    )


def resume(plan: list[int], workdir: pathlib.Path | None, state: TrainState) -> Saved:
    """Where to go on: the last checkpoint that can be read, or the beginning if the run
    was stopped before the first.

    Args:
      plan: steps of each epoch.
      workdir: of the run; None in a process that is told by process 0.
      state: a state of the same shapes, before the first step.

    Raises:
      UserError: no usable checkpoint, or nothing left to do.
    """
    saved = Saved(state)
    if workdir:
        if (workdir / artifacts.SUMMARY).exists():
            raise UserError(
                f"--resume: the run in {workdir} is complete; there is nothing left to "
                "do"
            )
        saved = checkpoint.restore_saved(workdir, state, before=sum(plan)) or saved
        checkpoint.forget_after(workdir, int(saved.state.step))
        done, taken = batches.position(plan, int(saved.state.step))
        print(
            f"going on after epoch {done} of {len(plan)}"
            + (f" and {taken} steps" if taken else ""),
            flush=True,
        )
    return told_by_first(saved) if jax.process_count() > 1 else saved


def told_by_first(saved: Saved) -> Saved:
    """What process 0 goes on from, in every process; what the steps reported is its own
    affair, but for how many."""
    state, count = parallel.as_in_first((saved.state, np.int32(len(saved.taken.loss))))
    taken = (
        Taken(*(np.resize(array, int(count)) for array in saved.taken))
        if jax.process_index()
        else saved.taken
    )
    return Saved(state, taken=taken)


def resume_log(log: run_log.RunLog, before: Saved, plan: list[int]) -> list[float]:
    """Continues the log of a run; returns the losses of its epochs on the validation
    split, if any."""
    step, updates = int(before.state.step), int(before.state.updates)
    return log.resume(
        batches.position(plan, step)[0],
        step - updates - int(before.taken.skipped.sum()),
    )


def resume_command(workdir: pathlib.Path) -> str:
    """What continues a run."""
    return (
        f"python -m jaxnn.train --flagfile={workdir / artifacts.FLAGS} "
        f"--workdir={workdir} --resume"
    )


def write_sample(
    experiment: Experiment, data: Dataset, forward: Callable, workdir: pathlib.Path
) -> None:
    """Draws a text from a trained language model into sample.txt, and shows how it
    begins."""
    text = decoding.generate(
        forward, data.class_names, experiment.sequence_length, "", SAMPLE_LENGTH
    )
    artifacts.write_text(workdir / artifacts.SAMPLE, text)
    print("sample:\n" + "\n".join(f"  {line}" for line in text.splitlines()))


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp32")
