"""Activation functions by name, in torch's own kernels where it has them."""

import functools
from collections.abc import Callable

import torch
from torch.nn import functional

from jaxnn.experiment.flags.config import Experiment
from torch_ref.activations import ACTIVATIONS, Activation

# torch_ref's own formulas of these keep more digits, and take more operations.
KERNELS: dict[str, Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": functools.partial(torch.softmax, dim=-1),
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
}


def build(experiment: Experiment) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the function of `--activation`."""
    if experiment.activation == "leaky_relu":
        slope = experiment.leaky_relu_alpha
        return functools.partial(functional.leaky_relu, negative_slope=slope)
    return (ACTIVATIONS | KERNELS)[experiment.activation]
