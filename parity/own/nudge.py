"""Any JAX function with its products and convolutions moved by their own rounding.

Shows on which side of a kink (a ReLU at zero, a maximum of equals) rounding may put a
step, as `kinks` does for the models of jaxnn; here for functions that nobody knows. The
function is traced, and its program is run again with the results of every product
moved. Bodies of loops and of custom derivatives run as they are.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")
"""Primitives whose results are rounded sums."""
INLINED = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint")
"""Primitives that only hold a program of their own."""


def nudged(function: Callable, seed: Any, compute: np.dtype) -> Callable:
    """Returns the function with moved products; it can be differentiated.

    Args:
      function: any function of arrays.
      seed: seed of the draws, possibly traced.
      compute: dtype whose rounding is imitated.
    """

    def moved(*args: Any) -> Any:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        keys = _keys(seed)
        flat = jax.tree_util.tree_leaves(args)
        outputs = _run(program.jaxpr, program.consts, flat, keys, compute)
        return jax.tree_util.tree_unflatten(
            jax.tree_util.tree_structure(shape), outputs
        )

    return moved


def _keys(seed: Any) -> Iterator[jax.Array]:
    # JAX's default would be written out for every product: five times the compilation.
    key = jax.random.key(seed, impl="unsafe_rbg")
    return (jax.random.fold_in(key, number) for number in itertools.count())


def _run(
    program: Any, consts: Any, args: Any, keys: Iterator[jax.Array], compute: np.dtype
) -> list[Any]:
    """Interprets a program, moving what its products give."""
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(program.constvars, consts))
    values.update(zip(program.invars, args))
    for equation in program.eqns:
        inputs = [read(atom) for atom in equation.invars]
        outputs = _apply(equation, inputs, keys, compute)
        values.update(zip(equation.outvars, outputs))
    return [read(atom) for atom in program.outvars]


def _apply(
    equation: Any, inputs: list[Any], keys: Iterator[jax.Array], compute: np.dtype
) -> list[Any]:
    primitive = equation.primitive
    if primitive.name in INLINED and "jaxpr" in equation.params:
        inner = equation.params["jaxpr"]
        program = getattr(inner, "jaxpr", inner)
        consts = getattr(inner, "consts", ())
        return _run(program, consts, inputs, keys, compute)
    params = primitive.get_bind_params(equation.params)
    # Some versions of JAX return the functions apart, to be given before the inputs.
    functions, params = params if isinstance(params, tuple) else ((), params)
    outputs = primitive.bind(*functions, *inputs, **params)
    outputs = outputs if primitive.multiple_results else [outputs]
    if primitive.name in PRODUCTS:
        return [_moved(next(keys), output, compute) for output in outputs]
    return list(outputs)


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
