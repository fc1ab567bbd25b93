"""Metrics per example, averaged by the caller: [batch, ...] -> [batch] float32.

Twin of jaxnn/metrics.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor as Array
from torch.nn import functional

Metric = Callable[[Array, Array], Array]


def absolute_error(outputs: Array, targets: Array) -> Array:
    """|y - t|, averaged over the outputs of an example.

    Args:
      outputs: [batch, outputs] values y.
      targets: [batch, outputs] values t.
    """
    difference = outputs.float() - targets.float()
    return torch.mean(torch.abs(difference), dim=-1)


def binary_accuracy(outputs: Array, targets: Array) -> Array:
    """1 where the sign of the logit is that of the label, else 0.

    Args:
      outputs: [batch, 1] logits; a logit of 0 counts as positive.
      targets: [batch, 1] labels, 0 or 1.
    """
    is_right = (outputs >= 0) == (targets > 0.5)
    return torch.mean(is_right.float(), dim=-1)


def accuracy(outputs: Array, targets: Array) -> Array:
    """1 where the largest logit is that of the label, else 0.

    Args:
      outputs: [batch, classes] logits; the first of equal logits counts.
      targets: [batch] integer classes, from 0.
    """
    is_right = torch.argmax(outputs, dim=-1) == targets
    return is_right.float()


def bits_per_character(outputs: Array, targets: Array) -> Array:
    """(log(sum_k exp(z_k)) - z_t) / ln 2, averaged over the positions of an example.

    Graves 2013, arXiv 1308.0850.

    Args:
      outputs: [batch, steps, vocabulary] logits z.
      targets: [batch, steps] integer characters t.
    """
    # torch wants the classes on the second axis.
    losses = functional.cross_entropy(
        outputs.float().transpose(1, 2), targets.long(), reduction="none"
    )
    return torch.mean(losses, dim=-1) / math.log(2)


METRICS: dict[str, tuple[str, Metric]] = {
    "regression": ("mae", absolute_error),
    "binary": ("accuracy", binary_accuracy),
    "multiclass": ("accuracy", accuracy),
    "language": ("bits_per_character", bits_per_character),
}
"""Task -> (name in metrics.csv, metric)."""
