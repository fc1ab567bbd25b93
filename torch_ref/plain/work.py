"""What a plain run trains on: all of it in memory, on one device, in float32."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref import gathering
from torch_ref.metrics import METRICS, Metric
from torch_ref.optimizers import OPTIMIZERS
from torch_ref.plain import networks, objective

UNSUPPORTED = (
    "patience",
    "init_params",
    "resume",
    "freeze",
    "random_crop",
    "random_flip",
)
"""Flags that only the other programs obey."""


class Work(NamedTuple):
    """A run before its first step.

    Attributes:
      experiment: what is trained.
      network: network, on the device.
      loss: (outputs, targets) -> mean loss.
      metric: (outputs, targets) -> [batch] metric.
      optimizer: optimizer over the network's parameters.
      train: inputs and targets of the training split, on the device.
      evaluated: the same of every split that is evaluated, "test" first.
      plan: steps of each epoch.
      rates: [steps] learning rate of each step; None if it never changes.
    """

    experiment: Experiment
    network: nn.Module
    loss: objective.Loss
    metric: Metric
    optimizer: torch.optim.Optimizer
    train: tuple[Tensor, Tensor]
    evaluated: list[tuple[Tensor, Tensor]]
    plan: list[int]
    rates: list[float] | None


class Score(NamedTuple):
    """Means over a split.

    Attributes:
      loss: loss.
      metric: metric of the task.
    """

    loss: float
    metric: float


def require_supported(experiment: Experiment) -> None:
    """Raises UserError on a flag that these loops do not obey."""
    if experiment.precision != "fp32":
        raise UserError(
            f"--precision: plain PyTorch trains fp32 here, not {experiment.precision}"
        )
    for flag in UNSUPPORTED:
        if getattr(experiment, flag):
            raise UserError(f"--{flag}: plain PyTorch has none here; leave it out")
    if experiment.accumulation_steps > 1 or experiment.num_devices > 1:
        raise UserError(
            "--accumulation_steps, --num_devices: plain PyTorch takes the whole batch "
            "at once on one device; leave them out"
        )


def prepare(experiment: Experiment, data: Dataset) -> Work:
    """Puts data and network of an experiment on the device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(experiment.seed)
    network = networks.build(experiment, data.signature).to(device)
    count = len(data.train_inputs)
    table = schedules.learning_rates(experiment, batches.total_steps(experiment, count))
    # torch's own Adam: DeepSpeed's would need its compiler.
    settings = experiment.replace(fused_adam=False)
    splits = evaluation.splits(experiment, data)
    return Work(
        experiment,
        network,
        loss=objective.build(experiment),
        metric=METRICS[data.task][1],
        optimizer=OPTIMIZERS[experiment.optimizer](settings, network.parameters()),
        train=_tensors(samples.training(data), device),
        evaluated=[
            _tensors(samples.evaluated(data, [split]), device) for split in splits
        ],
        plan=batches.plan(experiment, count),
        rates=None if len(np.unique(table)) == 1 else table.tolist(),
    )


def update(work: Work, step: int) -> None:
    """Takes one step with the gradients that are there.

    Args:
      work: what is trained.
      step: steps done before.
    """
    if work.rates:
        for group in work.optimizer.param_groups:
            group["lr"] = work.rates[step]
    if work.experiment.clip_norm:
        nn.utils.clip_grad_norm_(work.network.parameters(), work.experiment.clip_norm)
    work.optimizer.step()


@torch.no_grad()
def score(work: Work, network: Any, inputs: Tensor, targets: Tensor) -> Score:
    """Returns means over a split, in batches as large as jaxnn evaluates."""
    pieces = evaluation_batches(work, inputs, targets)
    sums = torch.zeros(2, device=inputs.device)
    for x, y in pieces:
        outputs = network(x)
        means = torch.stack([work.loss(outputs, y), work.metric(outputs, y).mean()])
        sums += len(x) * means
    return Score(*(sums / len(inputs)).tolist())


def evaluation_batches(
    work: Work, inputs: Tensor, targets: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Cuts a split into batches of at most `evaluation.most_rows`."""
    rows = evaluation.most_rows(inputs[0].numel(), work.experiment.batch_size)
    return list(zip(inputs.split(rows), targets.split(rows)))


def _tensors(held: samples.Samples, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns inputs, scaled if they are bytes, and targets."""
    put = gathering.put(held, device)
    inputs = gathering.scale_bytes(put.inputs, put.scaling)
    return _indices(inputs), _indices(put.targets)


def _indices(x: Tensor) -> Tensor:
    """Returns classes and tokens as the int64 that torch's kernels take."""
    return x.long() if x.dtype == torch.int32 else x
