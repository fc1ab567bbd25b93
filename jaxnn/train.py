"""Trains one experiment in JAX. Twin of torch_ref/train.py.

    python -m jaxnn.train --flagfile=launch/experiments/breast_cancer.flags

Without flags it trains the linear regression. Exit code 2 on bad input or divergence.
"""

import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import numpy as np

from jaxnn import (
    checkpoint,
    decoding,
    diagnosis,
    distributed,
    epochs,
    layer_outputs,
    loop,
    models,
    parallel,
    recording,
    spreading,
    train_step,
)
from jaxnn.checkpoint import Reported, Saved
from jaxnn.compilation_cache import keep_compiled
from jaxnn.devices import choose_devices
from jaxnn.experiment import console, schedules
from jaxnn.experiment.catalogue import LANGUAGE, facts_on
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.data.dataset import Dataset, Signature
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.samples import exceed_cache
from jaxnn.experiment.diagnosis import layers as layers_of
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, locks, trace
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from jaxnn.experiment.results.layer_table import Network
from jaxnn.grace import Limit
from jaxnn.interruption import Interruption
from jaxnn.metrics import METRICS, Metric
from jaxnn.models import readers
from jaxnn.optimizers import OPTIMIZERS, Optimizer
from jaxnn.reading import Reader
from jaxnn.streaming import StreamedEpochs
from jaxnn.train_step import Params, TrainState

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
SAMPLE_LENGTH = 400
"""Characters that a language model writes into sample.txt."""
SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
"""Of JAX, process-wide, that a run changes."""
SMALL_LOOPS = (
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000000"
)
"""Fuses the training loop of a tiny network on a CPU, four times faster; a ResNet's
would be slower by a fifth."""


def main(experiment: Experiment) -> None:
    """Trains, together with other processes if there are any."""
    clock = run_log.Clock()
    # The first two before anything touches a device.
    with (
        configured(experiment),
        distributed.joined(experiment),
        Limit(experiment.grace_seconds) as limit,
        locks.released(),
        parallel.released(),
    ):
        run_experiment(experiment, clock, limit)


def run_experiment(experiment: Experiment, clock: run_log.Clock, limit: Limit) -> None:
    """Flags -> data -> model -> state -> epochs -> records."""
    data = load_dataset(experiment)
    distributed.agree_on_data(data)
    clock.end("data")
    run, before = assemble(experiment, data, limit)
    clock.end("init")
    with run.interruption, run.log:
        kept = loop.train(run, before)
        if run.checkpoints:
            run.checkpoints.close()
    if kept:
        clock.end("train", compile=run.epochs.compile_seconds)
        finish(run, data, kept, clock)
    elif run.workdir:
        print(f"stopped as asked; resume with {resume_command(run.workdir)}")


def assemble(
    experiment: Experiment, data: Dataset, limit: Limit
) -> tuple[loop.Run, Saved]:
    """Builds all that trains; returns the run, and what it starts from."""
    model = models.build(experiment, data.signature)
    splits = evaluation.splits(experiment, data)
    learning_rates = schedules.learning_rates(
        experiment, batches.total_steps(experiment, len(data.train_inputs))
    )
    metric_name, metric = METRICS[data.task]
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    state, network = start(experiment, model, optimizer, data.signature)
    devices = choose_devices(
        experiment, spreading.chooser(experiment, model, state, data.signature)
    )
    work, owners = epochs.make_work(experiment, data, splits, learning_rates, devices)
    names = loop.watched_tensors(experiment, state.params)
    layers = diagnosed_layers(experiment, model, data.signature)
    # From here on a SIGTERM lets the run save its state.
    interruption = Interruption(limit)
    runner = make_epochs(work, model, optimizer, metric, names, layers, interruption)

    # Bad input up to here leaves no run directory behind.
    is_writer = jax.process_index() == 0
    workdir = artifacts.create_workdir(experiment, "jax") if is_writer else None
    before = resume(work.plan, workdir, state) if experiment.resume else Saved(state)
    recorder = recording.Recorder(
        work, model, data.signature, optimizer, int(before.state.step), workdir
    )
    log = run_log.RunLog(experiment, data, "jax", workdir, metric_name, layers)
    log.network(network)
    run = loop.Run(
        work=work,
        splits=splits,
        owners=owners,
        model=model,
        epochs=runner,
        recorder=recorder,
        log=log,
        workdir=workdir,
        names=names,
        losses=resume_log(log, before, work.plan) if experiment.resume else [],
        checkpoints=(
            checkpoint.Checkpoints(workdir, experiment.keep) if workdir else None
        ),
        interruption=interruption,
    )
    state = parallel.replicate(before.state, devices)
    return run, before._replace(state=state)


def finish(run: loop.Run, data: Dataset, kept: loop.Kept, clock: run_log.Clock) -> None:
    """Writes what a completed run leaves: parameters, statistics, summary, plots."""
    work = run.work
    forward = functools.partial(train_step.forward, work.experiment, run.model)
    if data.task == LANGUAGE and run.workdir:
        network = readers.build(work.experiment, run.model, kept.params)
        trained = functools.partial(forward, kept.params, kept.batch_stats)
        write_sample(work.experiment, data, network or trained, run.workdir)
    if kept.batch_stats and run.workdir:
        batch_stats = trace.flatten(kept.batch_stats)
        artifacts.write_params(run.workdir / artifacts.BATCH_STATS, batch_stats)
    # The other processes are assumed to have the same devices.
    devices = [f"{device.platform} {device.device_kind}" for device in work.devices]
    run.log.finish(
        trace.flatten(kept.params),
        kept.outputs,
        clock,
        devices * jax.process_count(),
        PACKAGES,
        predict=functools.partial(predict, jax.jit(forward), kept),
    )


@contextlib.contextmanager
def configured(experiment: Experiment) -> Iterator[None]:
    """Does as `configure`, and puts everything back at its end."""
    with settings_put_back():
        configure(experiment)
        yield


@contextlib.contextmanager
def settings_put_back() -> Iterator[None]:
    """Puts back at its end what `configure` sets."""
    settings = {name: getattr(jax.config, name) for name in SETTINGS}
    flags = os.environ.get("XLA_FLAGS")
    try:
        yield
    finally:
        for name, value in settings.items():
            jax.config.update(name, value)
        os.environ.pop("XLA_FLAGS", None)
        if flags is not None:
            os.environ["XLA_FLAGS"] = flags


def configure(experiment: Experiment) -> None:
    """Sets what JAX holds process-wide: XLA's flags, float64, precision, caches."""
    flags = os.environ.get("XLA_FLAGS", "")
    # Before a device is touched: XLA reads its flags once.
    is_linear = facts_on(experiment.model).family == "linear"
    if is_linear and "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SMALL_LOOPS}".strip()
    jax.config.update("jax_enable_x64", experiment.precision == "fp64")
    # The default on GPUs and TPUs multiplies float32 matrices in fewer bits.
    jax.config.update("jax_default_matmul_precision", "highest")
    keep_compiled()


def start(
    experiment: Experiment, model: nn.Module, optimizer: Optimizer, signature: Signature
) -> tuple[TrainState, Network]:
    """Returns the state before the first step, from `--init_params` or fresh, and the
    shapes of the network."""
    given = {}
    networks = []
    if experiment.init_params:
        given = {"params": read_initial_params(experiment, model, signature)}

    def make(seed: jax.Array, given: dict[str, Params]) -> TrainState:
        # Noted while this is traced anyway: to trace it again may take a second.
        with layer_outputs.capture(rows=1) as outputs:
            variables = train_step.initial_variables(model, seed, signature)
        networks.append(network_of(variables["params"], outputs))
        return train_step.initial_state({**variables, **given}, experiment, optimizer)

    # Jitted, because op by op each operation of each initializer would be compiled.
    state = jax.jit(make)(experiment.seed, given)
    return state, networks[0]


def network_of(params: Params, outputs: layer_outputs.Outputs) -> Network:
    """Returns the shapes of a network.

    Args:
      params: in the order in which they were made.
      outputs: what its layers returned for a batch of one sample.
    """
    return Network(
        {name: array.shape for name, array in trace.flatten(params).items()},
        {layer: output.shape[1:] for layer, output in outputs.items()},
    )


def read_initial_params(
    experiment: Experiment, model: nn.Module, signature: Signature
) -> Params:
    """Returns the parameters of `--init_params`.

    Raises:
      UserError: a tensor is missing, not the model's, not finite, or of another shape.
    """
    variables = jax.eval_shape(
        lambda: train_step.initial_variables(model, 0, signature)
    )
    wanted = trace.flatten(variables["params"])
    given = artifacts.read_params(experiment.init_params, "--init_params")
    for name in sorted(wanted.keys() | given.keys()):
        here = tuple(given[name].shape) if name in given else None
        there = tuple(wanted[name].shape) if name in wanted else None
        if here != there:
            raise UserError(
                f"--init_params: {name} is {here or 'missing'} in "
                f"{experiment.init_params}, {there or 'unknown'} in "
                f"--model={experiment.model}"
            )
    return trace.unflatten(given)


def diagnosed_layers(
    experiment: Experiment, model: nn.Module, signature: Signature
) -> list[str]:
    """Returns the layers that `--diagnose` looks at, in the network's order."""
    if not experiment.diagnose:
        return []
    return layers_of(recording.parameter_names(model, signature))


def make_epochs(
    work: epochs.Work,
    model: nn.Module,
    optimizer: Optimizer,
    metric: Metric,
    names: list[str],
    layers: list[str],
    interruption: Interruption,
) -> epochs.Epochs:
    """Returns the epochs of a run; their data stay on the devices if they fit."""
    step = functools.partial(
        train_step.train_step,
        work.experiment,
        model,
        optimizer,
        axis_name=parallel.AXIS,
    )
    if work.experiment.diagnose:
        step = diagnosis.diagnosed(
            step, work.experiment, model, layers, work.plan, parallel.AXIS
        )
    eval_step = functools.partial(train_step.eval_step, work.experiment, model, metric)
    if not exceed_cache(work.experiment, work.train, work.evaluated):
        return epochs.ResidentEpochs(work, step, eval_step)
    return StreamedEpochs(
        work,
        step,
        eval_step,
        watch=lambda first, results: loop.stop_if_diverged(
            results, names, first, work.experiment
        ),
        is_due=interruption.is_due,
    )


def resume(plan: list[int], workdir: pathlib.Path | None, state: TrainState) -> Saved:
    """Returns the last checkpoint that can be read, or the start if there is none.

    Args:
      plan: steps of each epoch.
      workdir: run directory, or None on processes that do not write.
      state: state before the first step.

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
        # A run that was stopped before its first checkpoint starts again.
        saved = checkpoint.restore_saved(workdir, state, before=sum(plan)) or saved
        checkpoint.forget_after(workdir, int(saved.state.step))
        epochs_done, steps_done = batches.position(plan, int(saved.state.step))
        within = f" and {steps_done} steps" if steps_done else ""
        print(f"going on after epoch {epochs_done} of {len(plan)}{within}", flush=True)
    return told_by_first(saved) if jax.process_count() > 1 else saved


def told_by_first(saved: Saved) -> Saved:
    """Returns in every process what process 0 resumes from."""
    count = np.int32(len(saved.reported.loss))
    state, count = parallel.as_in_first((saved.state, count))
    reported = saved.reported
    # Only process 0 logs what the steps reported; the others must know how many.
    if jax.process_index():
        reported = Reported(*(np.resize(array, int(count)) for array in reported))
    # Without `best`: of several processes, a run that may stop early cannot resume.
    return Saved(state, reported=reported)


def resume_log(log: run_log.RunLog, before: Saved, plan: list[int]) -> list[float]:
    """Continues the log of a run; returns its epochs' validation losses, if any."""
    step = int(before.state.step)
    epochs_done, _ = batches.position(plan, step)
    skipped = step - int(before.state.updates)
    # Those of an unfinished epoch are counted when it is logged.
    skipped -= int(before.reported.skipped.sum())
    return log.resume(epochs_done, skipped)


def resume_command(workdir: pathlib.Path) -> str:
    """Returns the command that continues a run."""
    return (
        f"python -m jaxnn.train --flagfile={workdir / artifacts.FLAGS} "
        f"--workdir={workdir} --resume"
    )


def write_sample(
    experiment: Experiment,
    data: Dataset,
    network: Callable | Reader,
    workdir: pathlib.Path,
) -> None:
    """Writes a text by a trained language model into sample.txt, and prints it."""
    text = decoding.generate(
        network, data.class_names, experiment.sequence_length, "", SAMPLE_LENGTH
    )
    artifacts.write_text(workdir / artifacts.SAMPLE, text)
    print("sample:\n" + "\n".join(f"  {line}" for line in text.splitlines()))


def predict(forward: Callable, kept: loop.Kept, inputs: np.ndarray) -> np.ndarray:
    """Returns outputs of the kept network, [n, ...] float32."""
    return np.asarray(forward(kept.params, kept.batch_stats, inputs), np.float32)


def leave(status: int) -> None:
    """Ends this process with an exit code; after an error without its other threads.

    Orbax's go on waiting for minutes, for a checkpoint whose folder is gone.
    """
    if status:
        console.flush()
        os._exit(status)
    sys.exit(status)


def program(experiment: Experiment) -> None:
    """Does as `main`, on as many cores of a CPU as pay."""
    spreading.offer_cores(experiment)
    main(experiment)


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(program, __doc__, default_precision="fp32", leave=leave)


if __name__ == "__main__":
    command()
