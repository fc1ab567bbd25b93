"""Metrics per example, averaged by the caller: [batch, ...] -> [batch] float32. Twin of jaxnn/metrics.py."""

from collections.abc import Callable

import torch

Metric = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def absolute_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """|y - t|, averaged over the outputs of an example: [batch, outputs] x 2 -> [batch]."""
    return torch.abs(outputs.float() - targets.float()).mean(dim=-1)


def binary_accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the logit's sign is the label's: [batch, 1] logits, [batch, 1] labels 0 or 1 -> [batch]."""
    return ((outputs >= 0) == (targets > 0.5)).float().mean(dim=-1)


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the largest logit is the label's: [batch, classes] logits, [batch] classes -> [batch]."""
    return (torch.argmax(outputs, dim=-1) == targets).float()


METRICS: dict[str, tuple[str, Metric]] = {
    "regression": ("mae", absolute_error),
    "binary": ("accuracy", binary_accuracy),
    "multiclass": ("accuracy", accuracy),
}
