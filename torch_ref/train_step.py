"""One training step and one evaluation step of a rank. Twin of jaxnn/train_step.py."""

from typing import Any, NamedTuple

import torch
from torch import nn

from jaxnn.experiment import batches
from jaxnn.experiment.config import Experiment
from torch_ref import engine as engines
from torch_ref import losses
from torch_ref.dropout import mask_source
from torch_ref.metrics import Metric
from torch_ref.precision import DTYPES


class Batch(NamedTuple):
    """This rank's rows of a batch.

    Attributes:
      inputs: [rows, features].
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
      loss_scale: the scale that multiplied the loss.
      skipped: an overflow left parameters and optimizer as they were.
    """

    loss: torch.Tensor
    learning_rate: float
    loss_scale: float
    skipped: bool


def gather(inputs: torch.Tensor, targets: torch.Tensor, ids: torch.Tensor) -> Batch:
    """The rows of `ids` [rows]; padding takes row 0 with weight 0."""
    rows = ids.clamp(min=0)
    return Batch(inputs[rows], targets[rows], (ids != batches.PADDING).float())


def objective(experiment: Experiment, model: nn.Module, batch: Batch, step: int, rank: int,
              world_size: int) -> torch.Tensor:
    """The rank's share of the global mean loss, times the world size, since DeepSpeed averages over ranks.

    Args:
      experiment: names loss and seed.
      model: called with (inputs, masks); the engine counts.
      batch: inputs in the compute format.
      step: batches seen so far.
      rank: of this process.
      world_size: ranks in all.
    """
    rows = len(batch.weights)
    masks = mask_source(experiment.seed, step, rank * rows, rows * world_size)
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    per_example = loss_function(model(batch.inputs, masks), batch.targets)
    weights, total = batch.weights.to(per_example.dtype), sum_over(batch.weights.sum(), world_size)
    return torch.sum(per_example * weights) / total.to(per_example.dtype) * world_size


def train_step(experiment: Experiment, engine: Any, batch: Batch, step: int, learning_rate: float, rank: int,
               world_size: int, with_grads: bool = False) -> tuple[StepResult, dict[str, torch.Tensor]]:
    """Forward, backward and update under the engine.

    Args:
      engine: of `engine.initialize`.
      with_grads: also read the unscaled gradients, by torch name.

    Raises:
      UserError: FP16 overflowed at the smallest loss scale.
    """
    batch = batch._replace(inputs=batch.inputs.to(DTYPES[experiment.precision]))
    engines.set_learning_rate(engine, learning_rate)
    scale = float(engine.optimizer.loss_scale)
    loss = objective(experiment, engine, batch, step, rank, world_size)
    engine.backward(loss)
    grads = engines.gradients(engine) if with_grads else {}
    engines.step(engine, step)
    mean = sum_over(loss.detach(), world_size) / world_size
    return StepResult(mean, learning_rate, scale, bool(engine.optimizer.overflow)), grads


@torch.no_grad()
def eval_step(experiment: Experiment, model: nn.Module, metric: Metric,
              batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(Weighted sums of loss and metric, outputs [rows, ...])."""
    outputs = model(batch.inputs.to(DTYPES[experiment.precision]))
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    sums = [torch.sum(f(outputs, batch.targets) * batch.weights) for f in (loss_function, metric)]
    return torch.stack([s.float() for s in sums]), outputs.float()


def sum_over(value: torch.Tensor, world_size: int) -> torch.Tensor:
    """The sum of a scalar over the ranks."""
    if world_size > 1:
        torch.distributed.all_reduce(value)
    return value
