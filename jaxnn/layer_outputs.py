"""Outputs of a network's layers while it runs, for the trace. Twin of
torch_ref/layer_outputs.py.

What counts as a layer, and as its output, stands in jaxnn/experiment/files/trace.py.
"""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Outputs = collections.OrderedDict[str, jax.Array]
"""{layer: output [rows, ...]}. JAX keeps the order of no mapping but this one."""


@contextlib.contextmanager
def capture(rows: int) -> Iterator[Outputs]:
    """Collects what layers return within the context, in the order in which they end.

    Args:
      rows: rows of the batch; outputs with another leading dimension are left out.
    """
    outputs: Outputs = collections.OrderedDict()

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        layer = context.module
        # The network itself has an empty path; layers without parameters do not count.
        is_layer = context.method_name == "__call__" and layer.path
        if is_layer and layer.variables.get("params"):
            # Recurrent layers return outputs and state.
            first = output[0] if isinstance(output, tuple) else output
            if _has_rows(first, rows):
                # A shared layer counts at its first call.
                outputs.setdefault("/".join(layer.path), first)
        return output

    with nn.intercept_methods(note):
        yield outputs


def _has_rows(output: Any, rows: int) -> bool:
    return (
        isinstance(output, jax.Array)
        and jnp.issubdtype(output.dtype, jnp.floating)
        and output.shape[:1] == (rows,)
    )
