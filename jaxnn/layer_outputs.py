"""The outputs of a network's layers while it runs, for the trace. Twin of
torch_ref/layer_outputs.py.

What counts as a layer, and as its output, is said in `experiment/trace.py`.
"""

import collections
import contextlib
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

Outputs = collections.OrderedDict[str, jax.Array]
"""Layer -> output [rows, ...]. Of all mappings, JAX leaves only this one in its order.
"""


@contextlib.contextmanager
def capture(rows: int) -> Iterator[Outputs]:
    """Collects what the layers of any network return that is applied within, in the
    order in which they end.

    Args:
      rows: of the batch; arrays without such a first axis are left out.
    """
    outputs: Outputs = collections.OrderedDict()

    def note(call, args, kwargs, context):
        output = call(*args, **kwargs)
        layer = context.module
        if (
            context.method_name == "__call__"
            and layer.path
            and layer.variables.get("params")
        ):
            first = output[0] if isinstance(output, tuple) else output
            if _has_rows(first, rows):
                outputs.setdefault("/".join(layer.path), first)
        return output

    with nn.intercept_methods(note):
        yield outputs


def _has_rows(output: jax.Array, rows: int) -> bool:
    return (
        isinstance(output, jax.Array)
        and jnp.issubdtype(output.dtype, jnp.floating)
        and output.shape[:1] == (rows,)
    )
