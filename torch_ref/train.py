"""Trains one experiment in PyTorch under DeepSpeed: the reference that jaxnn is judged
by. Twin of jaxnn/train.py.

    python -m torch_ref.train --flagfile=launch/experiments/breast_cancer.flags
    deepspeed --num_accelerators=2 --module torch_ref.train --flagfile=FILE

FP16 with dynamic loss scaling and ZeRO stage 1 unless the flags say otherwise. Exit
code 2 on bad input or divergence.
"""

import functools
import json
import pathlib
import sys
from typing import Any

import numpy as np
import torch
from absl import flags

from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.data.dataset import Dataset, Signature
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.diagnosis import layers as layers_of
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, locks
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed.writing import ds_config, file_config
from jaxnn.experiment.results import run_log
from jaxnn.experiment.results.layer_table import Network
from torch_ref import (
    checkpoint,
    diagnosis,
    epochs,
    freezing,
    kernels,
    layer_outputs,
    loop,
    models,
    params_io,
    ranks,
    recording,
    train_step,
)
from torch_ref import engine as engines
from torch_ref.metrics import METRICS, Metric
from torch_ref.optimizers import OPTIMIZERS
from torch_ref.precision import DTYPES

PACKAGES = ("torch", "deepspeed", "numpy")


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Trains, together with other ranks if there are any."""
    del values
    clock = run_log.Clock()
    require_supported(experiment)
    with locks.released():
        run_experiment(experiment, clock)
    ranks.shut_down()


def run_experiment(experiment: Experiment, clock: run_log.Clock) -> None:
    """Flags -> data -> model -> engine -> epochs -> records."""
    data = load_dataset(experiment)
    clock.end("data")
    run, before = assemble(experiment, data)
    clock.end("compile")
    with run.log:
        kept = loop.train(run, before)
    clock.end("train")
    finish(run, data, kept, clock)


def assemble(experiment: Experiment, data: Dataset) -> tuple[loop.Run, int]:
    """Builds all that trains; returns the run, and the epochs completed before it."""
    # Imports DeepSpeed, which takes seconds; bad flags and data are refused before.
    rank, world_size, device = ranks.join()
    splits = evaluation.splits(experiment, data)
    learning_rates = schedules.learning_rates(
        experiment, batches.total_steps(experiment, len(data.train_inputs))
    )
    work, owners = epochs.make_work(
        experiment, data, splits, learning_rates, device, rank, world_size
    )
    metric_name, metric = METRICS[data.task]
    config = ds_config(experiment, world_size)
    is_fp16 = experiment.precision == "fp16"
    fp16_kernels = kernels.fp16_kernels(experiment) if is_fp16 else "none"
    model = start(experiment, data.signature, device)
    network = network_of(model, data.signature, device)
    layers = diagnosed_layers(experiment, model)

    # Bad input up to here leaves no run directory behind.
    workdir = artifacts.create_workdir(experiment, "torch") if rank == 0 else None
    engine = make_engine(work, model, config, fp16_kernels, workdir)
    # Every rank writes and reads files of a checkpoint.
    shared_workdir = ranks.share(workdir)
    before = resume(work.plan, shared_workdir, engine) if experiment.resume else 0
    recorder = recording.Recorder(
        experiment, rank, world_size, work.first_step(before), workdir
    )
    log = run_log.RunLog(experiment, data, "torch", workdir, metric_name, layers)
    log.network(network)
    diagnostician = diagnosis.Diagnostician(
        experiment,
        work.plan,
        layers,
        functools.partial(models.build, experiment, data.signature),
        rank,
        world_size,
    )
    if before:
        log.resume(before, engine.skipped_steps)
    run = loop.Run(
        work=work,
        splits=splits,
        owners=owners,
        engine=engine,
        epochs=make_epochs(work, engine, metric, recorder, diagnostician),
        recorder=recorder,
        log=log,
        workdir=workdir,
        shared_workdir=shared_workdir,
        fp16_kernels=fp16_kernels,
    )
    return run, before


def finish(run: loop.Run, data: Dataset, kept: loop.Kept, clock: run_log.Clock) -> None:
    """Writes what a completed run leaves: parameters, statistics, summary, plots."""
    work = run.work
    if kept.batch_stats and run.workdir:
        artifacts.write_params(run.workdir / artifacts.BATCH_STATS, kept.batch_stats)
    # Only the rank with a workdir writes; a prediction needs no other.
    run.log.finish(
        kept.params,
        kept.outputs,
        clock,
        [str(work.device)] * work.world_size,
        PACKAGES,
        {"fp16_kernels": run.fp16_kernels},
        predict=functools.partial(predict, work.experiment, data, kept),
    )


def require_supported(experiment: Experiment) -> None:
    """Raises UserError on a flag that only jaxnn obeys."""
    if experiment.precision not in DTYPES:
        raise UserError(
            f"--precision: DeepSpeed trains {', '.join(DTYPES)}, not "
            f"{experiment.precision}"
        )
    # DeepSpeed's scale is the int 2**power (runtime/precision_config.py); torch
    # multiplies tensors by ints of 64 bits at most.
    if experiment.precision == "fp16" and experiment.initial_scale_power >= 64:
        raise UserError(
            "--initial_scale_power: torch cannot multiply by 2 to the "
            f"{experiment.initial_scale_power}; at most 63 under DeepSpeed"
        )
    # A checkpoint holds the engine's state alone, not the best epoch's network.
    if experiment.patience and (experiment.checkpoint_every or experiment.resume):
        raise UserError(
            "--patience: torch_ref.train cannot resume a run that may stop early; "
            "leave out --checkpoint_every and --resume"
        )
    # Of frozen parameters a checkpoint of DeepSpeed's holds no master.
    if experiment.freeze and (experiment.checkpoint_every or experiment.resume):
        raise UserError(
            "--freeze: torch_ref.train cannot resume a run with frozen parameters; "
            "leave out --checkpoint_every and --resume"
        )
    if experiment.coordinator_address or experiment.distributed:
        raise UserError(
            "--coordinator_address, --distributed: are jaxnn.train's; several hosts "
            "under DeepSpeed are its launcher's --hostfile, see launch/deepspeed.sh"
        )


def start(
    experiment: Experiment, signature: Signature, device: torch.device
) -> torch.nn.Module:
    """Returns the model before the first step, from `--init_params` or fresh."""
    torch.manual_seed(experiment.seed)
    model = models.build(experiment, signature)
    if experiment.init_params:
        params_io.load(
            model,
            artifacts.read_params(experiment.init_params, "--init_params"),
            experiment.init_params,
        )
    freezing.freeze(experiment, model)
    return model.to(device)


@torch.no_grad()
def network_of(
    model: torch.nn.Module, signature: Signature, device: torch.device
) -> Network:
    """Returns the shapes of a network, which it shows on a sample of zeros."""
    example = np.zeros((1, *signature.input_shape), signature.input_dtype)
    names = params_io.layer_names(model)
    with layer_outputs.capture(model, 1, names) as passes:
        model.eval()(torch.from_numpy(example).to(device))
    model.train()
    params = params_io.to_flax(model, dict(model.named_parameters()))
    return Network(
        {name: array.shape for name, array in params.items()},
        {layer: tuple(output.shape[1:]) for layer, output in passes[0].items()},
    )


def diagnosed_layers(experiment: Experiment, model: torch.nn.Module) -> list[str]:
    """Returns the layers that `--diagnose` looks at, in the network's order."""
    if not experiment.diagnose:
        return []
    return layers_of(params_io.flax_names(model).values())


def make_engine(
    work: epochs.Work,
    model: torch.nn.Module,
    config: dict[str, Any],
    fp16_kernels: str,
    workdir: pathlib.Path | None,
) -> Any:
    """Returns DeepSpeed's engine of a model; the rank that writes prints notes.

    Args:
      work: what is trained on.
      model: network, on this rank's device.
      config: ds_config.
      fp16_kernels: as from `kernels.fp16_kernels`.
      workdir: run directory, or None on ranks that do not write.
    """
    experiment, no_fused_adam = kernels.choose_adam(work.experiment)
    if workdir:
        write_ds_config(work, workdir)
        for note in kernels.notes(work.experiment, fp16_kernels, no_fused_adam):
            print(f"note: {note}", file=sys.stderr, flush=True)
    params = freezing.trained(model)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment, params)
    return engines.initialize_with_extra(model, optimizer, config, experiment.ds_extra)


def write_ds_config(work: epochs.Work, workdir: pathlib.Path) -> None:
    """Writes the ds_config with which DeepSpeed trains the same on its own."""
    # Beyond `ds_config`, it names optimizer and schedule, which torch_ref makes itself.
    config = file_config(work.experiment, work.world_size, len(work.learning_rates))
    text = json.dumps(config, indent=2) + "\n"
    artifacts.write_text(workdir / artifacts.DS_CONFIG, text)


def make_epochs(
    work: epochs.Work,
    engine: Any,
    metric: Metric,
    recorder: recording.Recorder,
    diagnostician: diagnosis.Diagnostician,
) -> epochs.SteppedEpochs:
    """Returns the epochs of a run."""
    watch = functools.partial(loop.stop_if_diverged, work, engine)
    return epochs.SteppedEpochs(work, engine, metric, recorder, diagnostician, watch)


def resume(plan: list[int], workdir: pathlib.Path, engine: Any) -> int:
    """Restores the engine from the newest checkpoint; returns the epochs completed.

    Args:
      plan: steps of each epoch.
      workdir: run directory.
      engine: fresh, as from `engine.initialize`.

    Raises:
      UserError: no usable checkpoint, or nothing left to do.
    """
    if (workdir / artifacts.SUMMARY).exists():
        raise UserError(
            f"--resume: the run in {workdir} is complete; there is nothing left to do"
        )
    step = checkpoint.restore(workdir, engine, before=sum(plan))
    epochs_done, _ = batches.position(plan, step)
    return epochs_done


def predict(
    experiment: Experiment, data: Dataset, kept: loop.Kept, inputs: np.ndarray
) -> np.ndarray:
    """Returns outputs of the kept network, [n, ...] float32."""
    # A fresh model: DeepSpeed may have partitioned the trained one over ranks that do
    # not take part.
    model = models.build(experiment, data.signature)
    params_io.load(model, kept.params, artifacts.PARAMS)
    params_io.load_stats(model, kept.batch_stats, artifacts.BATCH_STATS)
    for param in model.parameters():
        param.data = param.data.to(DTYPES[experiment.precision])
    rows = torch.from_numpy(np.asarray(inputs))
    return train_step.forward(experiment, model.eval(), rows).float().numpy()


def define_launcher_flags(values: flags.FlagValues) -> None:
    """Defines `--local_rank`, which the deepspeed launcher passes (MISMATCHES D13)."""
    flags.DEFINE_integer(
        "local_rank", -1, "Set by the deepspeed launcher; not used.", flag_values=values
    )


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(
        main,
        __doc__,
        default_precision="fp16",
        define_more=define_launcher_flags,
        leave=ranks.leave,
    )


if __name__ == "__main__":
    command()
