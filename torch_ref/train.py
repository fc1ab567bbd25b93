"""Trains one experiment in PyTorch under DeepSpeed: the reference that jaxnn is judged by.

    deepspeed --num_accelerators=1 --module torch_ref.train --flagfile=launch/experiments/breast_cancer.flags
    python -m torch_ref.train --flagfile=launch/experiments/breast_cancer.flags

FP16 with dynamic loss scaling and ZeRO stage 1 unless the flags say otherwise.
"""

import sys
from typing import Any

import numpy as np
import torch
from absl import flags

from jaxnn.experiment import batches, command_line, datasets, evaluation, records, run_log, schedules
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import Dataset
from torch_ref import engine as engines
from torch_ref import models, params_io
from torch_ref.metrics import METRICS, Metric
from torch_ref.optimizers import OPTIMIZERS
from torch_ref.precision import DTYPES
from torch_ref.recording import Recorder
from torch_ref.train_step import StepResult, eval_step, gather, objective, train_step

PACKAGES = ("torch", "deepspeed", "numpy")


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Flags -> data -> model -> engine -> epochs -> records."""
    del values
    clock = run_log.Clock()
    refuse_what_is_not_here(experiment)
    data = datasets.load(experiment)
    if data.train_inputs.dtype == np.uint8:
        raise UserError(f"--dataset: torch_ref does not train on the images of {experiment.dataset} yet")
    learning_rates = schedules.learning_rates(experiment, batches.total_steps(experiment, len(data.train_inputs)))
    clock.end("data")

    rank, world_size, device = engines.join_ranks()
    check_ranks(experiment, world_size)
    kernels = engines.fp16_kernels(experiment) if experiment.precision == "fp16" else "none"
    model = start(experiment, data, device)
    workdir = records.create_workdir(experiment, "torch") if rank == 0 else None
    if kernels == "software" and rank == 0:
        print("note: this CPU has no FP16 instructions; torch computes FP16 in software", file=sys.stderr)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment, model.parameters())
    engine = engines.initialize(experiment, model, optimizer, world_size)
    clock.end("compile")

    metric_name, metric = METRICS[data.task]
    recorder = Recorder(experiment, rank, world_size, workdir)
    with run_log.RunLog(experiment, data, "torch", workdir, metric_name) as log:
        outputs = train(experiment, data, learning_rates, engine, device, metric, recorder, log, rank, world_size)
    clock.end("train")

    flat = params_io.to_flax(engine.module, engines.masters(engine))
    log.finish(flat, outputs, clock, [str(device)] * world_size, PACKAGES, {"fp16_kernels": kernels})
    engines.shut_down()


def refuse_what_is_not_here(experiment: Experiment) -> None:
    """Raises UserError on a flag that only jaxnn obeys so far."""
    if experiment.precision not in DTYPES:
        raise UserError(f"--precision: DeepSpeed trains {', '.join(DTYPES)}, not {experiment.precision}")
    if experiment.resume or experiment.checkpoint_every:
        raise UserError("--resume, --checkpoint_every: torch_ref.train writes no checkpoints; leave them out")
    for flag, value in (("patience", 0), ("accumulation_steps", 1), ("normalization", "none")):
        if getattr(experiment, flag) != value:
            raise UserError(f"--{flag}: torch_ref does not have it yet; leave it out or train in jaxnn")


def check_ranks(experiment: Experiment, world_size: int) -> None:
    """Raises UserError if the batch does not divide among the ranks."""
    if experiment.batch_size % world_size:
        raise UserError(f"--batch_size: {experiment.batch_size} is not divisible by {world_size} ranks")


def start(experiment: Experiment, data: Dataset, device: torch.device) -> torch.nn.Module:
    """The model before the first step, from `--init_params` or fresh."""
    torch.manual_seed(experiment.seed)
    model = models.build(experiment, data.signature)
    if experiment.init_params:
        params_io.load(model, records.read_arrays(experiment.init_params, "--init_params"), experiment.init_params)
    return model.to(device)


def train(experiment: Experiment, data: Dataset, learning_rates: np.ndarray, engine: Any, device: torch.device,
          metric: Metric, recorder: Recorder, log: run_log.RunLog, rank: int, world_size: int) -> np.ndarray:
    """Runs every epoch; returns the test outputs of the last."""
    samples, plan = len(data.train_inputs), batches.plan(experiment, len(data.train_inputs))
    splits = evaluation.splits(experiment, data)
    evaluated, owners = evaluation.plan(experiment, splits)
    train_set, eval_set = ([torch.from_numpy(array).to(device) for array in arrays] for arrays in (
        (data.train_inputs, data.train_targets),
        (np.concatenate([split.inputs for split in splits]), np.concatenate([split.targets for split in splits]))))
    step, updates = 0, 0
    for number, steps in enumerate(plan):
        ids = batches.epoch_batches(experiment, samples, number)[:steps]
        mine = torch.from_numpy(batches.rank_slice(ids, rank, world_size)).to(device)
        results = []
        engine.train()
        for row in range(steps):
            batch, learning_rate = gather(*train_set, mine[row]), float(learning_rates[updates])
            if recorder.wants(step):
                result = recorder.run(engine, batch, ids[row], step, updates, learning_rate)
            else:
                result, _ = train_step(experiment, engine, batch, step, learning_rate, rank, world_size)
            stop_if_diverged(experiment, engine, batch, result, step, rank, world_size)
            results.append(result)
            step, updates = step + 1, updates + (not result.skipped)
        sums, outputs = evaluate(experiment, engine, metric, eval_set, evaluated)
        log.epoch(number, torch.stack([r.loss for r in results]).cpu().numpy(),
                  (ids != batches.PADDING).sum(axis=1), np.array([r.skipped for r in results]),
                  results[-1].learning_rate, evaluation.means(splits, owners, sums))
    return outputs[: len(data.test_inputs)]


def evaluate(experiment: Experiment, engine: Any, metric: Metric, eval_set: list[torch.Tensor],
             evaluated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of loss and metric over each of the batches [batches, 2], and the outputs [rows of all batches, ...]."""
    engine.eval()
    ids = torch.from_numpy(evaluated).to(eval_set[0].device)
    sums, outputs = zip(*(eval_step(experiment, engine.module, metric, gather(*eval_set, row)) for row in ids))
    return torch.stack(sums).cpu().numpy(), torch.cat(outputs).cpu().numpy()


def stop_if_diverged(experiment: Experiment, engine: Any, batch: Any, result: StepResult, step: int, rank: int,
                     world_size: int) -> None:
    """Raises UserError naming the tensor that is not finite, unless FP16 skipped the step.

    DeepSpeed skips a step that is not finite in any precision and drops its gradients, so the
    parameters are still those before it: the step is taken apart once more to find the tensor.
    """
    if not result.skipped and torch.isfinite(result.loss):
        return
    if experiment.precision == "fp16" and result.skipped:
        return
    tensors = {"loss": result.loss}
    if torch.isfinite(result.loss):
        batch = batch._replace(inputs=batch.inputs.to(DTYPES[experiment.precision]))
        engine.backward(objective(experiment, engine, batch, step, rank, world_size))
        tensors |= {f"gradient of {params_io.flax_names(engine.module)[name]}": gradient
                    for name, gradient in engines.gradients(engine).items()}
    finite = np.array([[bool(torch.isfinite(tensor).all()) for tensor in tensors.values()]])
    run_log.stop_unless_finite(list(tensors), finite, step)


def define_launcher_flags(values: flags.FlagValues) -> None:
    """The deepspeed launcher passes `--local_rank` to every process (MISMATCHES D13)."""
    flags.DEFINE_integer("local_rank", -1, "Set by the deepspeed launcher; not used.", flag_values=values)


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp16", define_more=define_launcher_flags)
