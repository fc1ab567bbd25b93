"""Floating point operations of a traced program, counted from its shapes, layer by
layer.

The rule: 2 for each multiply-add of a matrix product or convolution, 1 for each number
that other floating point arithmetic makes (a bias added, an activation, a norm), and
for a reduction the numbers it takes in less those it gives out. Products with the zeros
of padding or dilation do not count, as in XLA. Comparisons, selections, copies,
conversions and whole numbers are free. Loops count as often as they run.
"""

import collections
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

LAYER = "layer="
"""Starts the named scope of a layer; `layer_of` finds the innermost."""

OUTSIDE = "(loss)"
"""What no layer's scope encloses."""

ARITHMETIC = frozenset(
    (
        "abs",
        "add",
        "add_any",
        "atan2",
        "cos",
        "cosh",
        "cumsum",
        "div",
        "erf",
        "erf_inv",
        "exp",
        "exp2",
        "expm1",
        "integer_pow",
        "log",
        "log1p",
        "logistic",
        "max",
        "min",
        "mul",
        "neg",
        "pow",
        "rem",
        "rsqrt",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "sub",
        "tan",
        "tanh",
    )
)
REDUCTIONS = frozenset(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"))


def by_layer(program: core.ClosedJaxpr) -> dict[str, int]:
    """Layer -> FLOPs of a traced program."""
    counts: dict[str, int] = collections.Counter()
    for equation, stack, times in equations(program.jaxpr):
        counts[layer_of(stack)] += times * _flops(equation)
    return dict(counts)


def total(program: core.ClosedJaxpr) -> int:
    """FLOPs of a traced program."""
    return sum(by_layer(program).values())


def has_loops(program: core.ClosedJaxpr) -> bool:
    """Whether a traced program repeats a part of itself, which XLA's own analysis
    counts once."""
    return any(times > 1 for _, _, times in equations(program.jaxpr))


def layer_of(stack: str) -> str:
    """The innermost layer of a stack of named scopes: "a.b" for b in a, "" for the
    network itself, or `OUTSIDE`."""
    names = re.findall(rf"{LAYER}([\w.]*)", stack)
    return names[-1] if names else OUTSIDE


def equations(
    jaxpr: core.Jaxpr, stack: str = "", times: int = 1
) -> Iterator[tuple[Any, str, int]]:
    """(equation, its stack of named scopes, how often it runs) of a program, inner
    programs included.

    Of the branches of a condition the last is taken, and a loop that ends on a
    condition runs once.
    """
    for equation in jaxpr.eqns:
        here = f"{stack}/{equation.source_info.name_stack}"
        inner = inner_programs(equation)
        if not inner:
            yield equation, here, times
        for program in inner:
            yield from equations(
                program, here, times * equation.params.get("length", 1)
            )


def inner_programs(equation: Any) -> list[core.Jaxpr]:
    """The programs that an operation calls: a function, the body of a loop, a branch of
    a condition."""
    found = []
    for value in equation.params.values():
        parts = value[-1:] if isinstance(value, tuple) else (value,)
        found += [
            part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
            for part in parts
            if isinstance(part, core.ClosedJaxpr | core.Jaxpr)
        ]
    return found


def _flops(equation: Any) -> int:
    name, out = (
        equation.primitive.name,
        equation.outvars[0].aval if equation.outvars else None,
    )
    if (
        out is None
        or not hasattr(out, "dtype")
        or not jnp.issubdtype(out.dtype, jnp.floating)
    ):
        return 0
    if name in ARITHMETIC:
        return out.size
    if name in REDUCTIONS:
        return equation.invars[0].aval.size - out.size
    return _COUNTED[name](equation) if name in _COUNTED else 0


def _dot(equation: Any) -> int:
    contracted = equation.params["dimension_numbers"][0][0]
    shape = equation.invars[0].aval.shape
    return (
        2
        * equation.outvars[0].aval.size
        * math.prod(shape[axis] for axis in contracted)
    )


def _convolution(equation: Any) -> int:
    lhs, rhs = (v.aval.shape for v in equation.invars)
    out, params = equation.outvars[0].aval.shape, equation.params
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    products = (
        lhs[lhs_spec[0]]
        // params["batch_group_count"]
        * rhs[rhs_spec[1]]
        * out[out_spec[1]]
    )
    for axis, (a, k, o) in enumerate(zip(lhs_spec[2:], rhs_spec[2:], out_spec[2:])):
        products *= _positions(
            lhs[a],
            rhs[k],
            out[o],
            params["window_strides"][axis],
            params["padding"][axis][0],
            params["lhs_dilation"][axis],
            params["rhs_dilation"][axis],
        )
    return 2 * products


def _positions(
    length: int,
    kernel: int,
    out: int,
    stride: int,
    padding: int,
    dilation: int,
    kernel_dilation: int,
) -> int:
    """Pairs of output and kernel positions along one axis that meet a number of the
    input, not a zero put in."""
    at = (
        np.arange(out)[:, None] * stride + np.arange(kernel) * kernel_dilation - padding
    )
    return int(
        ((at >= 0) & (at <= (length - 1) * dilation) & (at % dilation == 0)).sum()
    )


def _window(equation: Any) -> int:
    return equation.outvars[0].aval.size * (
        math.prod(equation.params["window_dimensions"]) - 1
    )


def _window_gradient(equation: Any) -> int:
    return equation.invars[0].aval.size * math.prod(
        equation.params["window_dimensions"]
    )


_COUNTED: dict[str, Callable[[Any], int]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "reduce_window_sum": _window,
    "reduce_window_max": _window,
    "select_and_scatter_add": _window_gradient,
    "select_and_gather_add": _window_gradient,
}
