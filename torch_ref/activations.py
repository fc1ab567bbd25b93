"""Activation functions by name: [...] -> [...] of the same dtype.

Twin of jaxnn/activations.py.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor as Array
from torch.nn import functional

from torch_ref.activation_calls import told
from torch_ref.precision import at_least_float32

Activation = Callable[[Array], Array]


def _rounded_once(function: Callable) -> Callable:
    """Computes float16 and bfloat16 in float32 and rounds the result once."""

    # exp overflows float16 at 11, and each intermediate that is rounded costs digits.
    @functools.wraps(function)
    def wrapper(x: Array, **options: float) -> Array:
        return function(at_least_float32(x), **options).to(x.dtype)

    return wrapper


def linear(x: Array) -> Array:
    """x, with derivative 1."""
    return x


def step(x: Array) -> Array:
    """1 for x >= 0, else 0; the derivative is 0 everywhere.

    McCulloch & Pitts 1943; Rosenblatt 1958.
    """
    # floor has derivative 0; a comparison would leave no gradient at all.
    return 1 + torch.floor(x.clamp(-1, 0))


def relu(x: Array) -> Array:
    """max(0, x); derivative 1 for x > 0, else 0, at 0 too (Nair & Hinton 2010)."""
    return torch.relu(x)


@_rounded_once
def leaky_relu(x: Array, alpha: float = 0.01) -> Array:
    """x for x > 0, else alpha x; derivative 1 for x > 0, else alpha, at 0 too.

    Maas et al. 2013.

    Args:
      x: [...] inputs.
      alpha: slope below zero.
    """
    return functional.leaky_relu(x, alpha)


@_rounded_once
def sigmoid(x: Array) -> Array:
    """s(x) = 1 / (1 + exp(-x)), in (0, 1); derivative s(x)(1 - s(x)).

    Rumelhart et al. 1986.
    """
    return torch.sigmoid(x)


@_rounded_once
def tanh(x: Array) -> Array:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)), in (-1, 1); derivative 1 - tanh(x)^2.

    LeCun et al. 1998.
    """
    return torch.tanh(x)


@_rounded_once
def softmax(x: Array) -> Array:
    """p_k = exp(x_k) / sum_j exp(x_j) over the last axis (Bridle 1990).

    The derivative of p_k by x_j is p_k ([k = j] - p_j).
    """
    return torch.softmax(x, dim=-1)


@_rounded_once
def gelu(x: Array) -> Array:
    """x P(x), P(x) = erfc(-x / sqrt 2) / 2, the normal distribution function.

    The derivative is P(x) + x exp(-x^2 / 2) / sqrt(2 pi). Hendrycks & Gimpel 2016.
    """
    # torch's own gelu computes (1 + erf(x / sqrt 2)) / 2, which cancels at x << 0.
    return 0.5 * x * torch.erfc(-(0.5**0.5) * x)


@_rounded_once
def gelu_tanh(x: Array) -> Array:
    """x s(2u), u = sqrt(2 / pi) (x + 0.044715 x^3), s the sigmoid.

    The derivative is s(2u) + 2 x s(2u) (1 - s(2u)) u'. Hendrycks & Gimpel 2016.
    """
    # s(2u) is the paper's (1 + tanh u) / 2 without its cancellation at x << 0.
    return x * torch.sigmoid((8 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x))


def build(name: str, leaky_relu_alpha: float = 0.01) -> Activation:
    """Returns an activation by name.

    Args:
      name: a key of `ACTIVATIONS`.
      leaky_relu_alpha: slope of leaky_relu below zero.
    """
    if name == "leaky_relu":
        return told(functools.partial(leaky_relu, alpha=leaky_relu_alpha))
    return told(ACTIVATIONS[name])


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
