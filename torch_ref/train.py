"""Trains one experiment in PyTorch under DeepSpeed: the reference that jaxnn is judged
by.

    deepspeed --num_accelerators=1 --module torch_ref.train --flagfile=launch/experiments/breast_cancer.flags
    python -m torch_ref.train --flagfile=launch/experiments/breast_cancer.flags

FP16 with dynamic loss scaling and ZeRO stage 1 unless the flags say otherwise.
"""

import json
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from absl import flags

from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.samples import Samples
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed.writing import ds_config, file_config
from jaxnn.experiment.results import run_log
from torch_ref import checkpoint, models, params_io
from torch_ref import engine as engines
from torch_ref.gathering import gather, put, put_scaling
from torch_ref.metrics import METRICS, Metric
from torch_ref.optimizers import OPTIMIZERS
from torch_ref.precision import DTYPES
from torch_ref.recording import Recorder
from torch_ref.train_step import (
    Batch,
    StepResult,
    backward,
    eval_step,
    forward,
    sum_over,
    train_step,
)

PACKAGES = ("torch", "deepspeed", "numpy")


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Flags -> data -> model -> engine -> epochs -> records."""
    del values
    clock = run_log.Clock()
    refuse_what_is_not_here(experiment)
    data = load_dataset(experiment)
    learning_rates = schedules.learning_rates(
        experiment, batches.total_steps(experiment, len(data.train_inputs))
    )
    clock.end("data")

    rank, world_size, device = engines.join_ranks()
    config = ds_config(experiment, world_size)
    kernels = (
        engines.fp16_kernels(experiment) if experiment.precision == "fp16" else "none"
    )
    model = start(experiment, data, device)
    workdir = artifacts.create_workdir(experiment, "torch") if rank == 0 else None
    if workdir:
        whole = file_config(experiment, world_size, len(learning_rates))
        artifacts.write_text(
            workdir / artifacts.DS_CONFIG, json.dumps(whole, indent=2) + "\n"
        )
    available, no_fused_adam = engines.choose_adam(experiment)
    for note in engines.notes(experiment, kernels, no_fused_adam) if rank == 0 else ():
        print(f"note: {note}", file=sys.stderr, flush=True)
    optimizer = OPTIMIZERS[experiment.optimizer](available, model.parameters())
    engine = engines.initialize(model, optimizer, config)
    clock.end("compile")

    folder = engines.share(workdir)
    plan = batches.plan(experiment, len(data.train_inputs))
    epochs_done = resume(plan, folder, engine) if experiment.resume else 0
    metric_name, metric = METRICS[data.task]
    recorder = Recorder(experiment, rank, world_size, sum(plan[:epochs_done]), workdir)
    splits = evaluation.splits(experiment, data)
    held = samples.training(data), samples.evaluated(data, splits)
    place = put_scaling if samples.exceed_cache(experiment, *held) else put
    train_set, eval_set = (place(part, device) for part in held)
    with run_log.RunLog(experiment, data, "torch", workdir, metric_name) as log:
        if epochs_done and workdir:
            log.resume(epochs_done, engine.skipped_steps)
        run = Run(
            experiment,
            splits,
            train_set,
            eval_set,
            learning_rates,
            engine,
            metric,
            recorder,
            log,
            folder,
            rank,
            world_size,
        )
        kept = train(run, epochs_done)
    clock.end("train")

    if kept.batch_stats and workdir:
        artifacts.write_params(workdir / artifacts.BATCH_STATS, kept.batch_stats)
    log.finish(
        kept.params,
        kept.outputs,
        clock,
        [str(device)] * world_size,
        PACKAGES,
        {"fp16_kernels": kernels},
        predict=lambda inputs: predict(experiment, data, kept, inputs),
    )
    engines.shut_down()


def refuse_what_is_not_here(experiment: Experiment) -> None:
    """Raises UserError on a flag that only jaxnn obeys so far."""
    if experiment.precision not in DTYPES:
        raise UserError(
            f"--precision: DeepSpeed trains {', '.join(DTYPES)}, not "
            f"{experiment.precision}"
        )
    if experiment.precision == "fp16" and experiment.initial_scale_power >= 64:
        raise UserError(
            "--initial_scale_power: torch cannot multiply by 2 to the "
            f"{experiment.initial_scale_power}; at most 63 under DeepSpeed"
        )
    if experiment.patience and (experiment.checkpoint_every or experiment.resume):
        raise UserError(
            "--patience: torch_ref.train cannot resume a run that may stop early; "
            "leave out --checkpoint_every and --resume"
        )
    if experiment.coordinator_address or experiment.distributed:
        raise UserError(
            "--coordinator_address, --distributed: are jaxnn.train's; several hosts "
            "under DeepSpeed are its launcher's --hostfile, see launch/deepspeed.sh"
        )


def start(
    experiment: Experiment, data: Dataset, device: torch.device
) -> torch.nn.Module:
    """The model before the first step, from `--init_params` or fresh."""
    torch.manual_seed(experiment.seed)
    model = models.build(experiment, data.signature)
    if experiment.init_params:
        params_io.load(
            model,
            artifacts.read_arrays(experiment.init_params, "--init_params"),
            experiment.init_params,
        )
    return model.to(device)


def resume(plan: list[int], workdir: pathlib.Path, engine: Any) -> int:
    """Restores the engine and returns the epochs done.

    Args:
      plan: steps of each epoch.
      workdir: of the run.
      engine: fresh.

    Raises:
      UserError: no usable checkpoint, or nothing left to do.
    """
    if (workdir / artifacts.SUMMARY).exists():
        raise UserError(
            f"--resume: the run in {workdir} is complete; there is nothing left to do"
        )
    return batches.position(
        plan, checkpoint.restore(workdir, engine, before=sum(plan))
    )[0]


class Run(NamedTuple):
    """What does not change while the epochs pass.

    Attributes:
      experiment: what is trained.
      splits: evaluated after each epoch, the test split first.
      train_set: the training split, on the device if it fits.
      eval_set: of every split that is evaluated, one after the other, as `train_set`.
      learning_rates: [updates] float32.
      engine: of `engine.initialize`.
      metric: that accompanies the loss.
      recorder: takes the steps that are recorded.
      log: what is written and shown.
      workdir: of the run, on every rank.
      rank: of this process.
      world_size: ranks in all.
    """

    experiment: Experiment
    splits: list[evaluation.EvaluationSplit]
    train_set: Samples
    eval_set: Samples
    learning_rates: np.ndarray
    engine: Any
    metric: Metric
    recorder: Recorder
    log: run_log.RunLog
    workdir: pathlib.Path
    rank: int
    world_size: int


class Kept(NamedTuple):
    """The network after an epoch, on the host.

    Attributes:
      params: flat master parameters.
      batch_stats: flat running statistics; empty without batch normalization.
      outputs: [test samples, ...].
    """

    params: dict[str, np.ndarray]
    batch_stats: dict[str, np.ndarray]
    outputs: np.ndarray


def train(run: Run, epochs_done: int) -> Kept:
    """Runs the epochs that are left, until the validation loss stops falling if
    `--patience` is set.

    Args:
      run: everything else.
      epochs_done: before.

    Returns:
      The network to keep: the last epoch's, or the best under `--patience`.
    """
    experiment, log, num_samples = run.experiment, run.log, len(run.train_set.inputs)
    plan = batches.plan(experiment, num_samples)
    step = sum(plan[:epochs_done])
    updates = step - run.engine.skipped_steps
    evaluated, owners = evaluation.plan(experiment, run.splits, run.world_size)
    stopping, kept = EarlyStopping(experiment.patience, experiment.min_delta), None
    for number, steps in list(enumerate(plan))[epochs_done:]:
        ids = batches.epoch_batches(experiment, num_samples, number)[:steps]
        results = train_epoch(run, ids, step, updates)
        skipped = np.array([result.skipped for result in results], bool)
        step, updates = step + steps, updates + int((~skipped).sum())
        sums, outputs = evaluate(run, evaluated)
        means = evaluation.means(run.splits, owners, sums)
        log.epoch(
            number,
            torch.stack([result.loss for result in results]).cpu().numpy(),
            (ids != batches.PADDING).sum(axis=1),
            skipped,
            results[-1].learning_rate,
            means,
        )
        if (
            experiment.checkpoint_every
            and (number + 1) % experiment.checkpoint_every == 0
        ):
            checkpoint.save(run.workdir, run.engine, experiment.keep)
        if experiment.patience and not stopping.improves(means["validation"][0]):
            if stopping.is_over:
                break
        elif experiment.patience or number + 1 == len(plan):
            kept = keep(run.engine, outputs[: len(run.splits[0].inputs)])
    if experiment.patience:
        log.keep(stopping.best_epoch)
    return kept


def train_epoch(run: Run, ids: np.ndarray, step: int, updates: int) -> list[StepResult]:
    """Takes the steps of an epoch.

    Args:
      run: everything else.
      ids: [steps, batch] global batches.
      step: batches seen before.
      updates: applied before.
    """
    experiment, engine, rank, world_size = (
        run.experiment,
        run.engine,
        run.rank,
        run.world_size,
    )
    mine = batches.rank_slice(ids, rank, world_size, experiment.accumulation_steps)
    mine = torch.from_numpy(mine).to(engine.device)
    results = []
    engine.train()
    for row, number in enumerate(range(step, step + len(ids))):
        batch, learning_rate = (
            gather(run.train_set, mine[row]),
            float(run.learning_rates[updates]),
        )
        if run.recorder.wants(number):
            result = run.recorder.run(engine, batch, ids[row], number, learning_rate)
        else:
            result, _ = train_step(
                experiment, engine, batch, number, learning_rate, rank, world_size
            )
        stop_if_diverged(experiment, engine, batch, result, number, rank, world_size)
        results.append(result)
        updates += not result.skipped
    return results


def evaluate(run: Run, evaluated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each rank evaluates its columns of the batches [batches, rows of all ranks].

    Returns:
      Sums of loss and metric over each batch [batches, 2], and the outputs [rows of all
      batches, ...].
    """
    run.engine.eval()
    mine = torch.from_numpy(batches.rank_slice(evaluated, run.rank, run.world_size)).to(
        run.engine.device
    )
    sums, outputs = zip(
        *(
            eval_step(
                run.experiment, run.engine.module, run.metric, gather(run.eval_set, row)
            )
            for row in mine
        )
    )
    sums = sum_over(torch.stack(sums), run.world_size)
    outputs = engines.join_rows(torch.stack(outputs), run.world_size)
    return sums.cpu().numpy(), outputs.flatten(0, 1).cpu().numpy()


def keep(engine: Any, outputs: np.ndarray) -> Kept:
    """A copy of the network as it is now; every rank takes part in the reading."""
    model = engine.module
    return Kept(
        params_io.to_flax(model, engines.masters(engine)),
        params_io.stats_to_flax(model),
        outputs,
    )


def predict(
    experiment: Experiment, data: Dataset, kept: Kept, inputs: np.ndarray
) -> np.ndarray:
    """Outputs of the kept network, [n, ...] float32; on this rank alone, whatever
    DeepSpeed has partitioned."""
    model = models.build(experiment, data.signature)
    params_io.load(model, kept.params, artifacts.PARAMS)
    params_io.load_stats(model, kept.batch_stats, artifacts.BATCH_STATS)
    for param in model.parameters():
        param.data = param.data.to(DTYPES[experiment.precision])
    return (
        forward(experiment, model.eval(), torch.from_numpy(np.asarray(inputs)))
        .float()
        .numpy()
    )


def stop_if_diverged(
    experiment: Experiment,
    engine: Any,
    batch: Batch,
    result: StepResult,
    step: int,
    rank: int,
    world_size: int,
) -> None:
    """Raises UserError naming the tensor that is not finite, unless FP16 skipped the
    step.

    A step that is not finite is skipped in any precision and its gradients are dropped,
    so the parameters are still those before it: the step is taken apart once more to
    find the tensor.
    """
    if not result.skipped and torch.isfinite(result.loss):
        return
    if experiment.precision == "fp16" and result.skipped:
        return
    tensors = {"loss": result.loss}
    if torch.isfinite(result.loss):
        backward(experiment, engine, batch, step, rank, world_size)
        tensors |= {
            f"gradient of {params_io.flax_names(engine.module)[name]}": gradient
            for name, gradient in engines.gradients(engine).items()
        }
    finite = np.array(
        [[bool(torch.isfinite(tensor).all()) for tensor in tensors.values()]]
    )
    run_log.stop_unless_finite(list(tensors), finite, step)


def define_launcher_flags(values: flags.FlagValues) -> None:
    """The deepspeed launcher passes `--local_rank` to every process (MISMATCHES D13)."""
    flags.DEFINE_integer(
        "local_rank", -1, "Set by the deepspeed launcher; not used.", flag_values=values
    )


if __name__ == "__main__":
    command_line.run(
        main,
        __doc__,
        default_precision="fp16",
        define_more=define_launcher_flags,
        leave=engines.leave,
    )
