"""Activation functions, elementwise: [...] -> [...] of the same dtype. Twin of torch_ref/activations.py."""

from collections.abc import Callable

import jax

Activation = Callable[[jax.Array], jax.Array]


def identity(x: jax.Array) -> jax.Array:
    """x."""
    return x


def relu(x: jax.Array) -> jax.Array:
    """max(0, x), with derivative 0 at 0 (Nair & Hinton 2010)."""
    return jax.nn.relu(x)


def sigmoid(x: jax.Array) -> jax.Array:
    """1 / (1 + exp(-x)), in (0, 1); derivative s(x)(1 - s(x))."""
    return jax.nn.sigmoid(x)


def tanh(x: jax.Array) -> jax.Array:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)), in (-1, 1); derivative 1 - tanh(x)^2."""
    return jax.numpy.tanh(x)


ACTIVATIONS: dict[str, Activation] = {"identity": identity, "relu": relu, "sigmoid": sigmoid, "tanh": tanh}
