"""Recurrent layers whose kernels, torch's own, are given other parameters than they
hold."""

from collections.abc import Callable

import torch
from torch import nn

from jaxnn.experiment.patches import Patch


def recurrent(change: Callable[[torch.Tensor, str, int], torch.Tensor]):
    """Plants recurrent layers that compute with changed parameters, through which the
    gradients flow back.

    Args:
      change: (parameter [gates * hidden, ...], its name, hidden) -> the one that is
        used.
    """

    def make_for(layer: nn.RNNBase):
        def make(plain):
            def forward(x):
                held = layer._flat_weights
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                layer._flat_weights = [
                    change(weight, name, layer.hidden_size)
                    for weight, name in zip(held, names)
                ]
                try:
                    return plain(x)
                finally:
                    layer._flat_weights = held

            return forward

        return make

    return lambda scene: tuple(
        Patch(layer, "forward", make_for(layer))
        for layer in scene.engine.module.modules()
        if isinstance(layer, nn.RNNBase)
    )


def reordered(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """What is stored as i, f, g, o is read as i, f, o, g."""
    del name
    i, f, o, g = weight.split(hidden)
    return torch.cat([i, f, g, o])


def remembering(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """1 is added to the forget gate's bias."""
    if name != "bias_ih":
        return weight
    i, f, g, o = weight.split(hidden)
    return torch.cat([i, f + 1, g, o])


def flipped_update(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """The update gate is negated: sigmoid(-z) is 1 - sigmoid(z)."""
    del name
    r, z, n = weight.split(hidden)
    return torch.cat([r, -z, n])


def without_second_bias(weight: torch.Tensor, name: str, hidden: int) -> torch.Tensor:
    """Times 0, so that the bias still has a gradient."""
    del hidden
    return weight * 0 if name == "bias_hh" else weight
