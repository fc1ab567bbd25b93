"""An eager PyTorch loop, as a tutorial has it. Also a program:

python -m tests.benchmarks.eager_torch --flagfile=launch/experiments/breast_cancer.flags
"""

import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from tests.benchmarks import torch_models


def train(
    experiment: Experiment, data: Dataset, epochs: int
) -> list[tuple[float, float, float]]:
    """Trains from fresh parameters; (training loss, test loss, test metric) of every
    epoch."""
    torch.manual_seed(experiment.seed)
    model, (loss_function, metric) = (
        torch_models.build(experiment, data.signature),
        TASKS[data.task],
    )
    optimizer = make_optimizer(experiment, model)
    inputs, targets, test_inputs, test_targets = tensors(data)
    history = []
    for _ in range(epochs):
        train_loss = train_epoch(
            model, optimizer, loss_function, inputs, targets, experiment.batch_size
        )
        model.eval()
        with torch.no_grad():
            outputs = model(test_inputs)
            history.append(
                (
                    train_loss,
                    loss_function(outputs, test_targets).item(),
                    metric(outputs, test_targets).item(),
                )
            )
    return history


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_function: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    batch_size: int,
) -> float:
    """One pass over the shuffled data; the mean loss of its samples."""
    model.train()
    total = 0.0
    for rows in torch.randperm(len(inputs)).split(batch_size):
        optimizer.zero_grad()
        loss = loss_function(model(inputs[rows]), targets[rows])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(inputs)


def make_optimizer(experiment: Experiment, model: nn.Module) -> torch.optim.Optimizer:
    """Adam, or SGD with Nesterov's momentum where the experiment has it."""
    if experiment.optimizer == "nesterov":
        return torch.optim.SGD(
            model.parameters(),
            lr=experiment.learning_rate,
            momentum=experiment.momentum,
            nesterov=True,
            weight_decay=experiment.l2,
        )
    return torch.optim.Adam(model.parameters(), lr=experiment.learning_rate)


def tensors(data: Dataset) -> list[torch.Tensor]:
    """Training inputs and targets, test inputs and targets; classes as the int64 that
    torch wants."""
    arrays = [
        data.train_inputs,
        data.train_targets,
        data.test_inputs,
        data.test_targets,
    ]
    return [
        tensor.long() if tensor.dtype == torch.int32 else tensor
        for tensor in map(torch.from_numpy, arrays)
    ]


TASKS: dict[str, tuple[nn.Module, Any]] = {
    "regression": (nn.MSELoss(), lambda y, t: (y - t).abs().mean()),
    "binary": (
        nn.BCEWithLogitsLoss(),
        lambda y, t: ((y >= 0) == (t > 0.5)).float().mean(),
    ),
    "language": (
        nn.CrossEntropyLoss(),
        lambda y, t: functional.cross_entropy(y, t) / 0.6931471805599453,
    ),
    "multiclass": (
        nn.CrossEntropyLoss(),
        lambda y, t: (y.argmax(dim=-1) == t).float().mean(),
    ),
}


if __name__ == "__main__":
    experiment, _ = command_line.parse(sys.argv, default_precision="fp32")
    history = train(experiment, load_dataset(experiment), experiment.epochs)
    print("test loss {1:.4g}, metric {2:.4f}".format(*history[-1]))
