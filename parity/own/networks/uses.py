"""The uses of one leaf: a tied embedding is looked up, and is the head as well."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from parity.own.networks.interpreter import evaluate, interpreted

MOST = 4
"""Uses that are told apart; the last stands for all that come after it, too."""
LAYOUTS = ("transpose", "convert_element_type", "reshape", "broadcast_in_dim", "copy")
"""Primitives that are no use by themselves, but a part of the next one."""
WORDS = {"gather": "lookup", "dot_general": "product"}
"""Primitive -> what it is called in sentences."""


def parted(function: Callable, leaf: str, uses: dict[int, str]) -> Callable:
    """Returns the function with a leaf of its own for every use.

    Args:
      function: function(leaves, ...), where leaves is {name: array}.
      leaf: name of the leaf; the new function takes it as [MOST, ...].
      uses: where to put {number of a use: what it is}.
    """

    def run(leaves: Any, *rest: Any) -> Any:
        parts = leaves[leaf]
        whole = jnp.asarray(parts[0])
        # By identity: a tracer is the same object wherever it is read.
        number_of: dict[int, int] = {}
        alive: list[Any] = []
        uses.clear()

        def apply(equation: Any, inputs: list[Any]) -> list[Any]:
            name = equation.primitive.name
            held = {number_of[id(v)] for v in inputs if id(v) in number_of}
            if any(value is whole for value in inputs):
                number = min(len(uses), MOST - 1)
                inputs = [parts[number] if v is whole else v for v in inputs]
                held.add(number)
            for number in held:
                uses[number] = name
            outputs = evaluate(equation, inputs)
            if name in LAYOUTS:
                alive.extend(outputs)
                number_of.update({id(o): number for o in outputs for number in held})
            return outputs

        return interpreted(function, apply)({**leaves, leaf: whole}, *rest)

    return run
