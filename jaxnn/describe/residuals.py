"""What autodiff keeps from the forward pass for the backward pass, layer by layer."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from jaxnn import flops

# Names of jax primitives whose output holds no numbers that the input does not.
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
CONVERSION = "convert_element_type"
CALLS = frozenset(("jit", "closed_call", "custom_jvp_call", "custom_vjp_call"))


class Value:
    """An array that a program is given or that one of its operations makes.

    Attributes:
      aval: shape and dtype.
      layer: layer that makes it; None for a parameter, an input or a constant.
      source: the value that this one is a view of, or itself.
    """

    def __init__(
        self, aval: Any, layer: str | None = None, source: "Value | None" = None
    ):
        self.aval = aval
        self.layer = layer
        self.source = source or self


def kept(trace: Callable, objective: Callable, params: Any, *rest: Any) -> list[Value]:
    """Returns the arrays that autodiff keeps, without parameters, inputs and constants.

    An array that is another one reshaped, transposed, broadcast or in a wider dtype
    counts as that one.

    Args:
      trace: (function, *arguments) -> program, each operation in the scope of its
        layer.
      objective: (params, *rest) -> (loss, aux).
      params: arguments that are differentiated.
      rest: further arguments.
    """

    # The outputs of the traced jax.vjp are the same on every backend, before a compiler
    # decides to compute some of them twice instead.
    def forward(params: Any, *rest: Any):
        return jax.vjp(lambda params: objective(params, *rest), params, has_aux=True)[1]

    program = trace(forward, params, *rest).jaxpr
    inputs = [Value(variable.aval) for variable in program.invars]
    outputs = _Values().outputs(program, inputs, "")
    sources = [value.source for value in outputs if value.source.layer is not None]
    return list({id(source): source for source in sources}.values())


class _Values:
    """Follows values through a program.

    Equal operations on equal values make one value, as compilers see to.
    """

    def __init__(self):
        # The ids in the keys are those of values that live as long as this object.
        self._made: dict[tuple, list[Value]] = {}

    def outputs(
        self, program: core.Jaxpr, inputs: Sequence[Value], stack: str
    ) -> list[Value]:
        """Returns the outputs of a program.

        Args:
          program: the program.
          inputs: its inputs.
          stack: named scopes that it is called in.
        """
        known = dict(zip(program.invars, inputs))
        known |= {variable: Value(variable.aval) for variable in program.constvars}

        def value(atom: Any) -> Value:
            is_literal = isinstance(atom, core.Literal)
            return self._literal(atom) if is_literal else known[atom]

        for equation in program.eqns:
            here = f"{stack}/{equation.source_info.name_stack}"
            arguments = [value(atom) for atom in equation.invars]
            results = self._results(equation, arguments, here)
            known |= zip(equation.outvars, results)
        return [value(atom) for atom in program.outvars]

    def _results(
        self, equation: Any, inputs: Sequence[Value], stack: str
    ) -> list[Value]:
        inner = flops.inner_programs(equation)
        if equation.primitive.name in CALLS and len(inner) == 1:
            return self.outputs(inner[0], inputs, stack)
        key = (equation.primitive.name, str(equation.params), *map(id, inputs))
        if key not in self._made:
            source = inputs[0].source if _is_view(equation) else None
            layer = flops.layer_of(stack)
            self._made[key] = [
                Value(variable.aval, layer, source) for variable in equation.outvars
            ]
        return self._made[key]

    def _literal(self, atom: core.Literal) -> Value:
        key = (str(atom.aval), str(atom.val))
        return self._made.setdefault(key, [Value(atom.aval)])[0]


def _is_view(equation: Any) -> bool:
    if equation.primitive.name != CONVERSION:
        return equation.primitive.name in VIEWS
    # A wider copy can be made again from the narrow one, not the reverse.
    given = equation.invars[0].aval.dtype.itemsize
    made = equation.outvars[0].aval.dtype.itemsize
    return made >= given
