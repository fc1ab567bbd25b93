"""Activation functions by name, with the formulas and the derivatives at kinks of
jaxnn/activations.py."""

import functools
from collections.abc import Callable

import numpy as np

from parity.oracle import operations
from parity.oracle.operations import sigmoid, softmax, tanh
from parity.oracle.tensor import Tensor, lift

Activation = Callable[[Tensor], Tensor]


def linear(x: Tensor) -> Tensor:
    """x."""
    return x


def step(x: Tensor) -> Tensor:
    """1 for x >= 0, else 0; derivative 0 everywhere."""
    return lift(np.where(x.value >= 0, 1.0, 0.0))


def relu(x: Tensor) -> Tensor:
    """max(0, x); derivative 0 at 0."""
    return operations.maximum(x, 0.0)


def leaky_relu(x: Tensor, alpha: float = 0.01) -> Tensor:
    """x for x > 0, else alpha x; derivative alpha at 0."""
    return operations.where(x.value > 0, x, alpha * x)


def gelu(x: Tensor) -> Tensor:
    """x erfc(-x / sqrt 2) / 2."""
    return 0.5 * x * operations.erfc(-(0.5**0.5) * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """x s(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return x * sigmoid((8 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x))


def build(name: str, leaky_relu_alpha: float = 0.01) -> Activation:
    """The activation of a name.

    Args:
      name: a key of `ACTIVATIONS`.
      leaky_relu_alpha: slope of leaky_relu below zero.
    """
    return (
        functools.partial(leaky_relu, alpha=leaky_relu_alpha)
        if name == "leaky_relu"
        else ACTIVATIONS[name]
    )


ACTIVATIONS: dict[str, Activation] = {
    "linear": linear,
    "step": step,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softmax": softmax,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
}
