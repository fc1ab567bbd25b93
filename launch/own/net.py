"""A network of one's own in both libraries, side by side.

    python -m jaxnn.train --flagfile=launch/own/net.flags
    python -m parity.run --flagfile=launch/own/net.flags --steps=20

What such a file holds stands in jaxnn/experiment/own_model.py.
"""

import flax.linen as flax
import numpy as np
import torch


class Net(flax.Module):
    """Two gated layers: [batch, num_inputs] -> [batch, num_outputs]."""

    hidden_sizes: tuple[int, ...]
    num_outputs: int

    @flax.compact
    def __call__(self, x, train=False):
        """[batch, num_inputs] -> [batch, num_outputs]."""
        for size in self.hidden_sizes:
            x = flax.Dense(size)(x) * flax.sigmoid(flax.Dense(size)(x))
            x = flax.Dropout(0.1, deterministic=not train)(x)
        return flax.Dense(self.num_outputs)(x)


class TorchNet(torch.nn.Module):
    """The same, with value and gate of a layer in one matrix."""

    def __init__(self, num_inputs, hidden_sizes, num_outputs):
        super().__init__()
        sizes = [num_inputs, *hidden_sizes]
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(a, 2 * b) for a, b in zip(sizes, hidden_sizes)
        )
        self.dropout = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(sizes[-1], num_outputs)

    def forward(self, x):
        """[batch, num_inputs] -> [batch, num_outputs]."""
        for layer in self.layers:
            x = self.dropout(torch.nn.functional.glu(layer(x)))
        return self.head(x)


def convert(state):
    """Moves torch's parameters to flax's names and layouts."""
    params = {}
    dense = [name.removesuffix(".bias") for name in state if name.endswith(".bias")]
    for layer in dense:
        kernel, bias = state[f"{layer}.weight"].T, state[f"{layer}.bias"]
        parts = 1 if layer == "head" else 2
        for part in zip(np.split(kernel, parts, 1), np.split(bias, parts)):
            params[f"Dense_{len(params)}"] = dict(zip(("kernel", "bias"), part))
    return params
