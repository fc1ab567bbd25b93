"""Any JAX function with its products and convolutions moved by their own rounding.

Shows on which side of a kink (a ReLU at zero, a maximum of equals) rounding may put a
step, as `kinks` does for the models of jaxnn; here for functions that nobody knows.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.own.networks.interpreter import evaluate, interpreted

PRODUCTS = ("dot_general", "conv_general_dilated")
"""Primitives whose results are rounded sums."""


def nudged(function: Callable, seed: Any, compute: np.dtype) -> Callable:
    """Returns the function with moved products; it can be differentiated.

    Args:
      function: any function of arrays.
      seed: seed of the draws, possibly traced.
      compute: dtype whose rounding is imitated.
    """

    def moved(*args: Any) -> Any:
        keys = _keys(seed)

        def apply(equation: Any, inputs: list[Any]) -> list[Any]:
            outputs = evaluate(equation, inputs)
            if equation.primitive.name not in PRODUCTS:
                return outputs
            return [_moved(next(keys), output, compute) for output in outputs]

        return interpreted(function, apply)(*args)

    return moved


def _keys(seed: Any) -> Iterator[jax.Array]:
    # JAX's default would be written out for every product: five times the compilation.
    key = jax.random.key(seed, impl="unsafe_rbg")
    return (jax.random.fold_in(key, number) for number in itertools.count())


def _moved(key: jax.Array, output: jax.Array, compute: np.dtype) -> jax.Array:
    """Moves a product by its rounding: stored in `compute`, summed in float32."""
    exact = jax.lax.stop_gradient(output)
    typical = jnp.sqrt(jnp.mean(jnp.square(exact)))
    stored, summed = jax.random.uniform(key, (2, *output.shape), jnp.float32, -1, 1)
    error = (
        stored * float(jnp.finfo(compute).eps) * jnp.abs(exact)
        + summed * float(jnp.finfo(jnp.float32).eps) * typical
    )
    return output + error.astype(output.dtype)
