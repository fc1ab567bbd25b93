"""Activation functions by name: [...] -> [...] tensors.

Formulas and derivatives at kinks are those of jaxnn/activations.py.
"""

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
    # A constant to the tape, which therefore passes no derivative on.
    return lift(np.where(x.value >= 0, 1.0, 0.0))


def relu(x: Tensor) -> Tensor:
    """max(0, x); derivative 0 at 0."""
    # `maximum` gives the derivative of a tie to its second argument, the constant 0.
    return operations.maximum(x, 0.0)


def leaky_relu(x: Tensor, alpha: float = 0.01) -> Tensor:
    """x for x > 0, else alpha x; derivative alpha at 0, as in torch."""
    return operations.where(x.value > 0, x, alpha * x)


def gelu(x: Tensor) -> Tensor:
    """x P(x), P(x) = erfc(-x / sqrt 2) / 2 (Hendrycks & Gimpel 2016)."""
    # (1 + erf(x / sqrt 2)) / 2 is the same function, but cancels at x << 0.
    return 0.5 * x * operations.erfc(-(0.5**0.5) * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """x s(2u), u = sqrt(2 / pi) (x + 0.044715 x^3), s the sigmoid."""
    # s(2u) is (1 + tanh u) / 2 without its cancellation at x << 0.
    return x * sigmoid((8 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x))


def build(name: str, leaky_relu_alpha: float = 0.01) -> Activation:
    """Returns the activation called `name`.

    Args:
      name: key of `ACTIVATIONS`.
      leaky_relu_alpha: slope of leaky_relu below zero.
    """
    if name == "leaky_relu":
        return functools.partial(leaky_relu, alpha=leaky_relu_alpha)
    return ACTIVATIONS[name]


# To add an activation: one function above and one row here. The tests require the same
# keys as jaxnn's.
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
