"""The outputs of a network's layers while it runs, for the trace. Twin of
jaxnn/layer_outputs.py.

What counts as a layer, and as its output, is said in `jaxnn/experiment/files/trace.py`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from torch_ref.precision import at_least_float32

Outputs = dict[str, torch.Tensor]
"""Layer -> output [rows, ...] in at least float32."""


@contextlib.contextmanager
def capture(model: nn.Module, rows: int) -> Iterator[list[Outputs]]:
    """Collects what the layers return, in the order in which they end, of each forward
    pass taken within.

    Args:
      model: whose modules are watched.
      rows: of the batch; arrays without such a first axis are left out.
    """
    passes: list[Outputs] = []

    def begin(model: nn.Module, args: Any) -> None:
        passes.append({})

    def watch(name: str, layer: nn.Module) -> Any:
        def note(layer: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if _has_rows(first, rows) and name not in passes[-1]:
                passes[-1][name] = at_least_float32(first.detach().clone())

        return layer.register_forward_hook(note)

    watched = {
        name.replace(".", "/"): layer
        for name, layer in model.named_modules()
        if name and _has_params(layer)
    }
    hooks = [
        model.register_forward_pre_hook(begin),
        *(watch(name, layer) for name, layer in watched.items()),
    ]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _has_params(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())


def _has_rows(output: Any, rows: int) -> bool:
    return (
        isinstance(output, torch.Tensor)
        and output.is_floating_point()
        and output.shape[:1] == (rows,)
    )
