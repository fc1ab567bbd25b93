"""One training step and one evaluation step of a rank. Twin of jaxnn/train_step.py."""

from typing import Any, NamedTuple

import torch
from torch import nn

from jaxnn.experiment.flags.config import Experiment
from torch_ref import engine as engines
from torch_ref import losses, precision
from torch_ref.dropout import mask_source
from torch_ref.metrics import Metric
from torch_ref.precision import DTYPES


class Batch(NamedTuple):
    """This rank's rows of a batch.

    Attributes:
      inputs: [rows, ...].
      targets: [rows, ...].
      weights: [rows] float32, 0 for padding and 1 for samples.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


class StepResult(NamedTuple):
    """What a step reports.

    Attributes:
      loss: () mean over the global batch, unscaled.
      learning_rate: of the step.
      loss_scale: the scale that multiplied the loss, as DeepSpeed's scaler held it.
      skipped: an overflow left parameters and optimizer as they were.
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
    part: int = 0,
) -> torch.Tensor:
    """The share of one part of this rank's rows in the global mean loss, times the
    world size: DeepSpeed averages.

    Args:
      experiment: names loss, seed and `accumulation_steps`, the number of parts.
      model: called with (inputs, masks); the engine counts.
      batch: inputs in the compute format.
      step: batches seen so far.
      rank: of this process.
      world_size: ranks in all.
      part: which one, in the order of the rows.
    """
    rows = len(batch.weights)
    size = rows // experiment.accumulation_steps
    total = sum_over(batch.weights.sum(), world_size)
    inputs, targets, weights = (
        tensor[part * size : (part + 1) * size] for tensor in batch
    )
    first_row = (part * world_size + rank) * size
    masks = mask_source(
        experiment.seed,
        step,
        first_row,
        rows * world_size,
        weights,
        experiment.sync_batch_norm,
    )
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    per_example = loss_function(model(inputs, masks), targets)
    weights = weights.to(per_example.dtype)
    return torch.sum(per_example * weights) / total.to(per_example.dtype) * world_size


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
    """Forward, backward and update under the engine.

    Args:
      experiment: what is trained.
      engine: of `engine.initialize`.
      batch: this rank's rows.
      step: batches seen so far.
      learning_rate: of this step.
      rank: of this process.
      world_size: ranks in all.
      with_grads: also read the unscaled gradients, by torch name.

    Raises:
      UserError: FP16 overflowed at the smallest loss scale.
    """
    engines.set_learning_rate(engine, learning_rate)
    scale = engines.loss_scale(engine)
    loss = backward(experiment, engine, batch, step, rank, world_size)
    grads = engines.gradients(engine) if with_grads else {}
    skipped = engines.step(engine, step)
    return StepResult(loss, learning_rate, scale, skipped), grads


def backward(
    experiment: Experiment,
    engine: Any,
    batch: Batch,
    step: int,
    rank: int,
    world_size: int,
) -> torch.Tensor:
    """Leaves the gradients of a step with the engine, to be read or applied; returns
    the global batch's mean loss."""
    batch = batch._replace(
        inputs=precision.cast(batch.inputs, DTYPES[experiment.precision])
    )
    total = torch.zeros((), device=batch.weights.device)
    for part in range(experiment.accumulation_steps):
        if part:
            engines.step(engine, step)  # ends the part before
        loss = objective(experiment, engine, batch, step, rank, world_size, part)
        engines.backward(engine, loss)
        total = total + loss.detach()
    return sum_over(total, world_size) / world_size


@torch.no_grad()
def eval_step(
    experiment: Experiment, model: nn.Module, metric: Metric, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Weighted sums of loss and metric, outputs [rows, ...])."""
    outputs = forward(experiment, model, batch.inputs)
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    sums = [
        torch.sum(f(outputs, batch.targets) * batch.weights)
        for f in (loss_function, metric)
    ]
    return torch.stack([s.float() for s in sums]), outputs.float()


@torch.no_grad()
def forward(
    experiment: Experiment, model: nn.Module, inputs: torch.Tensor
) -> torch.Tensor:
    """Outputs in the compute format, outside training; the model must be in its
    evaluation mode."""
    return model(precision.cast(inputs, DTYPES[experiment.precision]))


def sum_over(value: torch.Tensor, world_size: int) -> torch.Tensor:
    """The sum of a tensor over the ranks."""
    if world_size > 1:
        torch.distributed.all_reduce(value)
    return value
