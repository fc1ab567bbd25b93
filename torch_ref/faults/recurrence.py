"""Recurrent layers that compute with other parameters than they hold.

The kernels are torch's own and cannot be changed, but what they are given can: a gate
that is read in another place, negated, or with a bias on top.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from jaxnn.experiment.patches import Patch
from torch_ref.faults.fault import Scene

# The order of torch's `_flat_weights` for a layer with biases (nn/modules/rnn.py).
FLAT_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def recurrent(change: Callable[[torch.Tensor, str, int], torch.Tensor]):
    """Plants recurrent layers with changed parameters, which gradients flow through.

    Args:
      change: (parameter [gates * hidden, ...], its name in `FLAT_WEIGHTS`, hidden) ->
        the parameter that is used.
    """

    def make_for(layer: Any):
        def make(plain):
            def forward(x):
                held = layer._flat_weights
                layer._flat_weights = [
                    change(weight, name, layer.hidden_size)
                    for weight, name in zip(held, FLAT_WEIGHTS)
                ]
                # Put back at once: the optimizer must see the parameters themselves.
                try:
                    return plain(x)
                finally:
                    layer._flat_weights = held

            return forward

        return make

    def plant(scene: Scene) -> tuple[Patch, ...]:
        return tuple(
            Patch(layer, "forward", make_for(layer))
            for layer in scene.engine.module.modules()
            if isinstance(layer, nn.RNNBase)
        )

    return plant


def reordered(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """Reads gates that are stored as i, f, g, o in the order i, f, o, g."""
    del name
    i, f, o, g = weight.split(hidden)
    return torch.cat([i, f, g, o])


def remembering(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """Adds 1 to the bias of the forget gate."""
    if name != "bias_ih":
        return weight
    i, f, g, o = weight.split(hidden)
    return torch.cat([i, f + 1, g, o])


def flipped_update(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """Negates the update gate: sigmoid(-z) is 1 - sigmoid(z)."""
    del name
    r, z, n = weight.split(hidden)
    return torch.cat([r, -z, n])


def without_second_bias(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """Multiplies the recurrent bias by 0."""
    del hidden
    # Not left out: an optimizer and a trace need a gradient of every parameter.
    return weight * 0 if name == "bias_hh" else weight
