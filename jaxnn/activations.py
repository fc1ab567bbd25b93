"""Activation functions by name: [...] -> [...] of the same dtype. Twin of
torch_ref/activations.py.

float16 and bfloat16 are computed in float32 and rounded once: exp overflows float16 at
11, and every intermediate that is rounded costs digits.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnn.precision import at_least_float32

Activation = Callable[[jax.Array], jax.Array]


def _rounded_once(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapper(x: jax.Array, **options: float) -> jax.Array:
        return function(at_least_float32(x), **options).astype(x.dtype)

    return wrapper


def linear(x: jax.Array) -> jax.Array:
    """x, with derivative 1."""
    return x


def step(x: jax.Array) -> jax.Array:
    """1 for x >= 0, else 0; derivative 0 everywhere (McCulloch & Pitts 1943; Rosenblatt
    1958)."""
    return jnp.heaviside(x, jnp.ones_like(x))


def relu(x: jax.Array) -> jax.Array:
    """max(0, x); derivative 1 for x > 0, else 0, at 0 too (Nair & Hinton 2010)."""
    return jax.nn.relu(x)


@_rounded_once
def leaky_relu(x: jax.Array, alpha: float = 0.01) -> jax.Array:
    """x for x > 0, else alpha x; derivative 1 for x > 0, else alpha, at 0 too (Maas et
    al. 2013).

    Args:
      x: [...].
      alpha: slope below zero.
    """
    return jnp.where(
        x > 0, x, alpha * x
    )  # jax.nn.leaky_relu has derivative 1 at 0, torch alpha


@_rounded_once
def sigmoid(x: jax.Array) -> jax.Array:
    """s(x) = 1 / (1 + exp(-x)), in (0, 1); derivative s(x)(1 - s(x)) (Rumelhart et al.
    1986)."""
    return jax.nn.sigmoid(x)


@_rounded_once
def tanh(x: jax.Array) -> jax.Array:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)), in (-1, 1); derivative 1 - tanh(x)^2
    (LeCun et al. 1998)."""
    return jnp.tanh(x)


@_rounded_once
def softmax(x: jax.Array) -> jax.Array:
    """p_k = exp(x_k) / sum_j exp(x_j) over the last axis; dp_k/dx_j = p_k ([k = j] -
    p_j) (Bridle 1990)."""
    return jax.nn.softmax(x, axis=-1)


@_rounded_once
def gelu(x: jax.Array) -> jax.Array:
    """x P(x), P(x) = erfc(-x / sqrt 2) / 2; derivative P(x) + x exp(-x^2 / 2) / sqrt(2
    pi).

    P is the normal distribution function. Hendrycks & Gimpel 2016.
    """
    return 0.5 * x * jax.lax.erfc(-(0.5**0.5) * x)


@_rounded_once
def gelu_tanh(x: jax.Array) -> jax.Array:
    """x s(2u), u = sqrt(2 / pi) (x + 0.044715 x^3); derivative s(2u) + 2 x s(2u) (1 -
    s(2u)) u'.

    s is the sigmoid. s(2u) is the (1 + tanh u) / 2 of Hendrycks & Gimpel 2016, without
    its cancellation at x << 0.
    """
    return x * jax.nn.sigmoid((8 / jnp.pi) ** 0.5 * (x + 0.044715 * x * x * x))


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
