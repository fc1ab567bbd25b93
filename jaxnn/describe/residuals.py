"""What autodiff keeps from the forward pass for the backward pass, by layer; nothing is
allocated."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from jaxnn.describe import flops

VIEWS = frozenset(
    (
        "reshape",
        "transpose",
        "squeeze",
        "broadcast_in_dim",
        "rev",
        "copy",
        "stop_gradient",
        "optimization_barrier",
    )
)
WIDENED = "convert_element_type"
CALLS = frozenset(("jit", "closed_call", "custom_jvp_call", "custom_vjp_call"))


class Value:
    """What one operation of a program makes, or what the program is given.

    Attributes:
      aval: its shape and dtype.
      layer: that made it; None: a parameter, an input or a constant.
      source: the value that this one is a view of, or itself.
    """

    def __init__(
        self, aval: Any, layer: str | None = None, source: "Value | None" = None
    ):
        self.aval, self.layer, self.source = aval, layer, source or self


def kept(trace: Callable, objective: Callable, params: Any, *rest: Any) -> list[Value]:
    """The arrays that autodiff keeps, without parameters, inputs and constants.

    They are the outputs of the traced `jax.vjp`: the same on every backend, and before
    a compiler decides to compute some of them twice instead. What is computed twice
    alike counts once, as every compiler sees to; an array that is another one reshaped,
    transposed, broadcast or in a wider format counts as that one.

    Args:
      trace: (function, *arguments) -> its program, each operation in the scope of its
        layer.
      objective: (params, *rest) -> (loss, more).
      params: what is differentiated.
      rest: further arguments.
    """

    def forward(params: Any, *rest: Any):
        return jax.vjp(lambda params: objective(params, *rest), params, has_aux=True)[1]

    program = trace(forward, params, *rest).jaxpr
    outputs = _Values().outputs(program, [Value(v.aval) for v in program.invars], "")
    return list(
        {
            id(value.source): value.source
            for value in outputs
            if value.source.layer is not None
        }.values()
    )


class _Values:
    """Follows values through a program: equal operations on equal values make one
    value."""

    def __init__(self):
        self._made: dict[tuple, list[Value]] = {}

    def outputs(
        self, program: core.Jaxpr, inputs: Sequence[Value], stack: str
    ) -> list[Value]:
        """The values that a program returns, given those that it takes, called in a
        stack of named scopes."""
        known = dict(zip(program.invars, inputs)) | {
            v: Value(v.aval) for v in program.constvars
        }

        def value(atom: Any) -> Value:
            return (
                self._literal(atom) if isinstance(atom, core.Literal) else known[atom]
            )

        for equation in program.eqns:
            here = f"{stack}/{equation.source_info.name_stack}"
            known |= zip(
                equation.outvars,
                self._results(equation, [value(v) for v in equation.invars], here),
            )
        return [value(v) for v in program.outvars]

    def _results(
        self, equation: Any, inputs: Sequence[Value], stack: str
    ) -> list[Value]:
        inner = flops.inner_programs(equation)
        if equation.primitive.name in CALLS and len(inner) == 1:
            return self.outputs(inner[0], inputs, stack)
        key = (equation.primitive.name, str(equation.params), *map(id, inputs))
        if key not in self._made:
            source = inputs[0].source if _is_view(equation) else None
            self._made[key] = [
                Value(v.aval, flops.layer_of(stack), source) for v in equation.outvars
            ]
        return self._made[key]

    def _literal(self, atom: core.Literal) -> Value:
        return self._made.setdefault(
            (str(atom.aval), str(atom.val)), [Value(atom.aval)]
        )[0]


def _is_view(equation: Any) -> bool:
    if equation.primitive.name == WIDENED:
        return (
            equation.outvars[0].aval.dtype.itemsize
            >= equation.invars[0].aval.dtype.itemsize
        )
    return equation.primitive.name in VIEWS
