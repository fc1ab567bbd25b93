"""One training step and one evaluation step of a rank. Twin of jaxnn/train_step.py.

The state lives in DeepSpeed's engine. Each function finds the next one by its name in
this module, because `torch_ref.faults` patches them while a run is under way.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from jaxnn.experiment import traits
from jaxnn.experiment.flags.config import Experiment
from torch_ref import engine as engines
from torch_ref import engine_readers, losses, params_io, precision
from torch_ref.augmentation import augment
from torch_ref.dropout import mask_source
from torch_ref.metrics import Metric
from torch_ref.precision import DTYPES


class Batch(NamedTuple):
    """This rank's rows of a batch.

    Attributes:
      inputs: [rows, ...].
      targets: [rows, ...].
      weights: [rows] float32, 1 for samples and 0 for padding rows.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


class StepResult(NamedTuple):
    """What a step reports.

    Attributes:
      loss: () mean over the global batch, unscaled.
      learning_rate: float.
      loss_scale: float, the scale that multiplied the loss, as DeepSpeed reports it.
      skipped: bool, True if an overflow left parameters and optimizer unchanged.
    """

    loss: torch.Tensor
    learning_rate: float
    loss_scale: float
    skipped: bool


def objective(
    experiment: Experiment,
    model: nn.Module,
    batch: Batch,
    step: int,
    rank: int,
    world_size: int,
    number: int = 0,
) -> torch.Tensor:
    """Share of a microbatch in the global mean loss, times world size.

    Args:
      experiment: names loss, seed and `accumulation_steps`, the number of microbatches.
      model: network, or the engine around it.
      batch: this rank's rows, inputs in the compute dtype.
      step: batches seen so far.
      rank: index of this rank.
      world_size: number of ranks.
      number: index of the microbatch, in the order of the rows.
    """
    rows = len(batch.weights)
    size = rows // experiment.accumulation_steps
    total = sum_over(batch.weights.sum(), world_size)
    inputs, targets, weights = (
        tensor[number * size : (number + 1) * size] for tensor in batch
    )
    # Global rows are ordered by microbatch, then by rank: a mask belongs to a row,
    # whatever the number of ranks.
    first_row = (number * world_size + rank) * size
    masks = mask_source(
        experiment.seed,
        step,
        first_row,
        weights,
        experiment.sync_batch_norm,
    )
    inputs = augment(experiment, inputs, masks)
    outputs = model(inputs, masks)
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    per_example = loss_function(outputs, targets)
    weights = weights.to(per_example.dtype)
    mean = torch.sum(per_example * weights) / total.to(per_example.dtype)
    # DeepSpeed multiplies by the loss scale, and divides by the world size when it
    # averages gradients over the ranks.
    return mean * world_size


def backward(
    experiment: Experiment,
    engine: Any,
    batch: Batch,
    step: int,
    rank: int,
    world_size: int,
) -> torch.Tensor:
    """Leaves the gradients of a step with the engine; returns the global mean loss.

    Twin of `gradients`, which returns them. Arguments as of `objective`, inputs of any
    floating dtype.
    """
    batch = batch._replace(
        inputs=precision.cast(batch.inputs, DTYPES[experiment.precision])
    )
    loss = torch.zeros((), device=batch.weights.device)
    for number in range(experiment.accumulation_steps):
        if number:
            # DeepSpeed counts microbatches by calls of `step`. The last one's call is
            # left to the caller, who may read the gradients first.
            engines.step(engine, step)
        share = objective(experiment, engine, batch, step, rank, world_size, number)
        engines.backward(engine, share)
        loss = loss + share.detach()
    return sum_over(loss, world_size) / world_size


def train_step(
    experiment: Experiment,
    engine: Any,
    batch: Batch,
    step: int,
    learning_rate: float,
    rank: int,
    world_size: int,
    with_grads: bool = False,
) -> tuple[StepResult, dict[str, torch.Tensor]]:
    """Forward, backward and update; returns (StepResult, grads).

    Args:
      experiment: what is trained.
      engine: as from `engine.initialize`.
      batch: this rank's rows.
      step: batches seen so far.
      learning_rate: rate of this step.
      rank: index of this rank.
      world_size: number of ranks.
      with_grads: True to read the unscaled gradients as well, {torch name: gradient}.

    Raises:
      UserError: FP16 overflowed at the smallest loss scale.
    """
    engines.set_learning_rate(engine, learning_rate)
    # Read before the step, which may change it.
    scale = engine_readers.loss_scale(engine)
    loss = backward(experiment, engine, batch, step, rank, world_size)
    grads = engine_readers.gradients(engine) if with_grads else {}
    skipped = engines.step(engine, step)
    result = StepResult(loss, learning_rate, scale, skipped)
    return result, grads


def line_of(experiment: Experiment, engine: Any) -> np.ndarray | None:
    """Returns [2] weight and bias of a fitted line; None in any other experiment.

    Every rank takes part.
    """
    if not traits.fits_line(experiment):
        return None
    params = params_io.to_flax(engine.module, engine_readers.masters(engine))
    weight = params["output/kernel"].reshape(-1)
    # There is none under --nouse_bias.
    bias = params.get("output/bias", np.zeros_like(weight))
    return np.concatenate([weight, bias])


@torch.no_grad()
def eval_step(
    experiment: Experiment,
    model: nn.Module,
    metric: Metric,
    batch: Batch,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns [2] weighted sums of loss and metric, and outputs [rows, ...]."""
    outputs = forward(experiment, model, batch.inputs)
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    values = [f(outputs, batch.targets) for f in (loss_function, metric)]
    sums = [torch.sum(v * batch.weights) for v in values]
    sums = torch.stack([s.float() for s in sums])
    return sums, outputs.float()


@torch.no_grad()
def forward(
    experiment: Experiment,
    model: nn.Module,
    inputs: torch.Tensor,
) -> torch.Tensor:
    """Returns outputs in the compute dtype; the model must be in evaluation mode."""
    return model(precision.cast(inputs, DTYPES[experiment.precision]))


def sum_over(value: torch.Tensor, world_size: int) -> torch.Tensor:
    """Sums a tensor over the ranks, in place; unchanged for one."""
    if world_size > 1:
        torch.distributed.all_reduce(value)
    return value
