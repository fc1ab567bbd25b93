"""Outputs of a network's layers while it runs, for the trace. Twin of
jaxnn/layer_outputs.py.

What counts as a layer, and as its output, stands in jaxnn/experiment/files/trace.py.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from torch_ref.precision import at_least_float32

Outputs = dict[str, torch.Tensor]
"""{layer: output [rows, ...] in at least float32}."""


@contextlib.contextmanager
def capture(
    model: nn.Module, rows: int, names: Mapping[str, str] | None = None
) -> Iterator[list[Outputs]]:
    """Collects what layers return within the context, in the order in which they end.

    Args:
      model: network whose layers are watched.
      rows: rows of the batch; outputs with another leading dimension are left out.
      names: torch name -> flax name of the layers that count; None: all of them, by
        torch's names.

    Yields:
      The outputs of each forward pass, one per microbatch.
    """
    passes: list[Outputs] = []

    def begin(model: nn.Module, args: Any) -> None:
        passes.append({})

    # The network itself has an empty name; layers without parameters do not count.
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if name and any(True for _ in layer.parameters())
    }
    if names is None:
        names = {name: name.replace(".", "/") for name in layers}
    hooks = [model.register_forward_pre_hook(begin)]
    for name in layers.keys() & names.keys():
        note = functools.partial(_note, passes, names[name], rows)
        hooks.append(layers[name].register_forward_hook(note))
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _note(
    passes: list[Outputs],
    name: str,
    rows: int,
    layer: nn.Module,
    args: Any,
    output: Any,
) -> None:
    """Forward hook of one layer."""
    del args
    # Recurrent layers return outputs and state.
    first = output[0] if isinstance(output, tuple) else output
    # Our layers derive from torch's and have flax's layouts; one's own may be torch's.
    if type(layer) in CHANNELS_FIRST and first.dim() > 2:
        first = first.movedim(1, -1)
    # A shared layer counts at its first call.
    if _has_rows(first, rows) and name not in passes[-1]:
        # A copy, because a later layer may work in place.
        passes[-1][name] = at_least_float32(first.detach().clone())


def _has_rows(output: Any, rows: int) -> bool:
    return (
        isinstance(output, torch.Tensor)
        and output.is_floating_point()
        and output.shape[:1] == (rows,)
    )


CHANNELS_FIRST = (
    nn.Conv1d,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GroupNorm,
)
"""Layers of torch that return [batch, channels, ...]."""
