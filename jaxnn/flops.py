"""Floating point operations of a traced program, layer by layer, from its shapes.

The rule:

- 2 for each multiply-add of a matrix product or convolution; products with the zeros of
  padding or dilation do not count, as in XLA
- 1 for each number that other floating point arithmetic makes (a bias added, an
  activation, a norm)
- the inputs less the outputs for a reduction
- 0 for comparisons, selections, copies, conversions and integers

The body of a loop counts as often as it runs.
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
"""Prefix of a layer's named scope; see `layer_of`."""

OUTSIDE = "(loss)"
"""Name of what is in no layer's scope."""

# Names of jax primitives.
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
    """Returns {layer: FLOPs} of a traced program."""
    counts: dict[str, int] = collections.Counter()
    for equation, stack, times in equations(program.jaxpr):
        counts[layer_of(stack)] += times * _flops(equation)
    return dict(counts)


def total(program: core.ClosedJaxpr) -> int:
    """Returns the FLOPs of a traced program."""
    return sum(by_layer(program).values())


def has_loops(program: core.ClosedJaxpr) -> bool:
    """Returns True if a traced program has a loop."""
    # XLA's own analysis counts the body of one once.
    return any(times > 1 for _, _, times in equations(program.jaxpr))


def layer_of(stack: str) -> str:
    """Returns the innermost layer of a stack of named scopes.

    "a.b" for b in a, "" for the network itself, or `OUTSIDE`.
    """
    names = re.findall(rf"{LAYER}([\w.]*)", stack)
    return names[-1] if names else OUTSIDE


def equations(
    jaxpr: core.Jaxpr, stack: str = "", times: int = 1
) -> Iterator[tuple[Any, str, int]]:
    """Yields (equation, stack of named scopes, how often it runs), inner ones included.

    Of the branches of a condition the last counts, and a loop that ends on a condition
    runs once.
    """
    for equation in jaxpr.eqns:
        # An inner program's scopes are relative to those of its call.
        here = f"{stack}/{equation.source_info.name_stack}"
        inner = inner_programs(equation)
        if not inner:
            yield equation, here, times
        # `scan` has a length, `while` has none.
        repeats = times * equation.params.get("length", 1)
        for program in inner:
            yield from equations(program, here, repeats)


def inner_programs(equation: Any) -> list[core.Jaxpr]:
    """Returns the programs that an operation calls.

    That is a function, the body of a loop, or the last branch of a condition.
    """
    found = []
    for value in equation.params.values():
        # The branches of `cond` are a tuple.
        last = value[-1] if isinstance(value, tuple) and value else value
        if isinstance(last, core.ClosedJaxpr):
            found.append(last.jaxpr)
        elif isinstance(last, core.Jaxpr):
            found.append(last)
    return found


def _flops(equation: Any) -> int:
    name = equation.primitive.name
    if not equation.outvars:
        return 0
    out = equation.outvars[0].aval
    # Tokens and keys have no dtype, or none of numpy's.
    if not hasattr(out, "dtype") or not jnp.issubdtype(out.dtype, jnp.floating):
        return 0
    if name in ARITHMETIC:
        return out.size
    if name in REDUCTIONS:
        return equation.invars[0].aval.size - out.size
    return _COUNTED[name](equation) if name in _COUNTED else 0


def _dot(equation: Any) -> int:
    contracted = equation.params["dimension_numbers"][0][0]
    shape = equation.invars[0].aval.shape
    depth = math.prod(shape[axis] for axis in contracted)
    return 2 * equation.outvars[0].aval.size * depth


def _convolution(equation: Any) -> int:
    params = equation.params
    lhs, rhs = (variable.aval.shape for variable in equation.invars)
    out = equation.outvars[0].aval.shape

    # The axes of an image are (batch, channels, space...), those of a kernel (out, in,
    # space...), wherever they lie.
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    batch = lhs[lhs_spec[0]] // params["batch_group_count"]
    products = batch * rhs[rhs_spec[1]] * out[out_spec[1]]
    spaces = zip(lhs_spec[2:], rhs_spec[2:], out_spec[2:])
    for axis, (lhs_axis, rhs_axis, out_axis) in enumerate(spaces):
        products *= _positions(
            lhs[lhs_axis],
            rhs[rhs_axis],
            out[out_axis],
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
    """Counts the pairs of output and kernel positions that meet an input, on one axis.

    The others meet a zero of padding or dilation.
    """
    starts = np.arange(out)[:, None] * stride - padding
    at = starts + np.arange(kernel) * kernel_dilation
    is_inside = (at >= 0) & (at <= (length - 1) * dilation)
    return int((is_inside & (at % dilation == 0)).sum())


def _window(equation: Any) -> int:
    window = math.prod(equation.params["window_dimensions"])
    return equation.outvars[0].aval.size * (window - 1)


def _window_gradient(equation: Any) -> int:
    window = math.prod(equation.params["window_dimensions"])
    return equation.invars[0].aval.size * window


# Primitives with a rule of their own.
_COUNTED: dict[str, Callable[[Any], int]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "reduce_window_sum": _window,
    "reduce_window_max": _window,
    "select_and_scatter_add": _window_gradient,
    "select_and_gather_add": _window_gradient,
}
