"""Loss of a batch and measures of a split, in torch's own kernels."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from jaxnn.experiment.flags.config import Experiment
from torch_ref import losses

Loss = Callable[[Tensor, Tensor], Tensor]


def build(experiment: Experiment) -> Loss:
    """Returns a function (outputs, targets) -> mean loss of `--loss`."""
    if experiment.loss == "cross_entropy":
        return functools.partial(_cross_entropy, smoothing=experiment.label_smoothing)
    return LOSSES.get(experiment.loss) or _mean_of(losses.build(experiment.loss))


def _cross_entropy(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    # One row a step of a sequence: torch would want the classes on the second axis.
    rows = outputs.reshape(-1, outputs.shape[-1])
    return functional.cross_entropy(
        rows, targets.reshape(-1), label_smoothing=smoothing
    )


def _mean_of(loss: Loss) -> Loss:
    return lambda outputs, targets: torch.mean(loss(outputs, targets))


LOSSES: dict[str, Loss] = {
    "mse": functional.mse_loss,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "multiclass_hinge": functional.multi_margin_loss,
}
"""Losses that torch has; others are the means of torch_ref's."""
