"""Activation functions, elementwise: [...] -> [...] of the same dtype. Twin of jaxnn/activations.py."""

from collections.abc import Callable

import torch

Activation = Callable[[torch.Tensor], torch.Tensor]


def identity(x: torch.Tensor) -> torch.Tensor:
    """x."""
    return x


def relu(x: torch.Tensor) -> torch.Tensor:
    """max(0, x), with derivative 0 at 0 (Nair & Hinton 2010)."""
    return torch.relu(x)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + exp(-x)), in (0, 1); derivative s(x)(1 - s(x))."""
    return torch.sigmoid(x)


def tanh(x: torch.Tensor) -> torch.Tensor:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)), in (-1, 1); derivative 1 - tanh(x)^2."""
    return torch.tanh(x)


ACTIVATIONS: dict[str, Activation] = {"identity": identity, "relu": relu, "sigmoid": sigmoid, "tanh": tanh}
