"""Any JAX function, traced, and its program run again equation by equation.

Bodies of loops and of custom derivatives run as they are.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

INLINED = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint")
"""Primitives that only hold a program of their own."""

Apply = Callable[[Any, list[Any]], list[Any]]
"""(equation, its inputs) -> its outputs."""


def interpreted(function: Callable, apply: Apply) -> Callable:
    """Returns the function with other equations; it can be differentiated."""

    def run(*args: Any) -> Any:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = jax.tree_util.tree_leaves(args)
        outputs = _run(program.jaxpr, program.consts, flat, apply)
        return jax.tree_util.tree_unflatten(
            jax.tree_util.tree_structure(shape), outputs
        )

    return run


def evaluate(equation: Any, inputs: list[Any]) -> list[Any]:
    """Returns what an equation gives as it is."""
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)
    # Some versions of JAX return the functions apart, to be given before the inputs.
    functions, params = params if isinstance(params, tuple) else ((), params)
    outputs = primitive.bind(*functions, *inputs, **params)
    return list(outputs) if primitive.multiple_results else [outputs]


def _run(program: Any, consts: Any, args: Any, apply: Apply) -> list[Any]:
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(program.constvars, consts))
    values.update(zip(program.invars, args))
    for equation in program.eqns:
        inputs = [read(atom) for atom in equation.invars]
        outputs = _inlined(equation, inputs, apply)
        values.update(zip(equation.outvars, outputs))
    return [read(atom) for atom in program.outvars]


def _inlined(equation: Any, inputs: list[Any], apply: Apply) -> list[Any]:
    if equation.primitive.name not in INLINED or "jaxpr" not in equation.params:
        return apply(equation, inputs)
    inner = equation.params["jaxpr"]
    program = getattr(inner, "jaxpr", inner)
    return _run(program, getattr(inner, "consts", ()), inputs, apply)
