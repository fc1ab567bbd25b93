"""Metrics per example, averaged by the caller: [batch, ...] -> [batch] float32. Twin of
jaxnn/metrics.py."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

Metric = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def absolute_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """|y - t|, averaged over the outputs of an example: [batch, outputs] x 2 -> [batch]."""
    return torch.abs(outputs.float() - targets.float()).mean(dim=-1)


def binary_accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the logit's sign is the label's: [batch, 1] logits, [batch, 1] labels 0
    or 1 -> [batch]."""
    return ((outputs >= 0) == (targets > 0.5)).float().mean(dim=-1)


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the largest logit is the label's: [batch, classes] logits, [batch]
    classes -> [batch]."""
    return (torch.argmax(outputs, dim=-1) == targets).float()


def bits_per_character(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(log(sum_k exp(z_k)) - z_t) / ln 2, averaged over the positions of an example
    (Graves 2013, 1308.0850).

    Args:
      outputs: [batch, steps, vocabulary] logits z.
      targets: [batch, steps] integer character t.
    """
    losses = functional.cross_entropy(
        outputs.float().transpose(1, 2), targets.long(), reduction="none"
    )
    return losses.mean(dim=-1) / math.log(2)


METRICS: dict[str, tuple[str, Metric]] = {
    "regression": ("mae", absolute_error),
    "binary": ("accuracy", binary_accuracy),
    "multiclass": ("accuracy", accuracy),
    "language": ("bits_per_character", bits_per_character),
}
