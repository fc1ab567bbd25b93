"""Losses per example: [batch, ...] outputs and targets -> [batch]. Twin of jaxnn/losses.py.

The caller averages. Outputs may be low precision; each loss is computed in float32, or in
float64 when the outputs are.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from torch_ref.precision import at_least_float32

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(y - t)^2, averaged over the outputs of an example; no factor 1/2.

    Args:
      outputs: [batch, outputs].
      targets: [batch, outputs].
    """
    outputs = at_least_float32(outputs)
    return torch.square(outputs - targets.to(outputs.dtype)).mean(dim=-1)


def binary_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-[t log s(z) + (1 - t) log s(-z)], s the logistic function: no cancellation at any logit.

    torch's own binary_cross_entropy_with_logits computes (1 - t) z - log s(z) and its gradient
    s(z) - t, which lose the digits of a confident, right answer: ten noise units on breast cancer.

    Args:
      outputs: [batch, outputs] logits z.
      targets: [batch, outputs] labels t, 0 or 1.
    """
    logits = at_least_float32(outputs)
    targets = targets.to(logits.dtype)
    losses = -targets * functional.logsigmoid(logits) - (1 - targets) * functional.logsigmoid(-logits)
    return losses.mean(dim=-1)


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log(sum_k exp(z_k)) - z_t: the negative log softmax of the right class.

    Args:
      outputs: [batch, classes] logits z.
      targets: [batch] integer class t.
    """
    return functional.cross_entropy(at_least_float32(outputs), targets.long(), reduction="none")


LOSSES: dict[str, Loss] = {"mse": mse, "binary_cross_entropy": binary_cross_entropy, "cross_entropy": cross_entropy}
