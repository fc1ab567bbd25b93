"""Files of networks of one's own, for the tests."""

import pathlib

from jaxnn.experiment.flags.config import Experiment

PAIR = """
import flax.linen as nn
import jax.numpy as jnp
import torch


class Net(nn.Module):
    num_outputs: int
    width: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(self.width, (3, 3), name="conv")(x))
        x = nn.Dropout(0.5, name="drop")(x, deterministic=not train)
        x = nn.LayerNorm(name="norm", epsilon=1e-5)(x.mean((1, 2)))
        gain = self.param("gain", nn.initializers.ones, ())
        x = nn.Dropout(0.2)(x * gain, not train)
        return nn.Dense(self.num_outputs, name="head")(x)


class TorchNet(torch.nn.Module):
    def __init__(self, input_shape, num_outputs, width):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.conv = torch.nn.Conv2d(input_shape[-1], width, 3, padding=1)
        self.drop = torch.nn.Dropout(0.5)
        self.norm = torch.nn.LayerNorm(width)
        self.last = torch.nn.Dropout(0.2)
        self.head = torch.nn.Linear(width, num_outputs)

    def forward(self, x):
        x = self.drop(torch.relu(self.conv(x.movedim(-1, 1))))
        x = self.norm(x.mean((2, 3)))
        return self.head(self.last(x * self.gain))
"""
"""A pair under the usual names, with images, dropout and a parameter of its own."""

RENAMED = """
import flax.linen as nn
import torch


class Net(nn.Module):
    num_outputs: int

    @nn.compact
    def __call__(self, x, masks=None):
        y = nn.BatchNorm(use_running_average=masks is None)(nn.Dense(3)(x))
        gate = nn.Dense(3)(x)
        return nn.Dense(self.num_outputs)(nn.sigmoid(gate) * y)


class TorchNet(torch.nn.Module):
    def __init__(self, num_inputs, num_outputs):
        super().__init__()
        self.both = torch.nn.Linear(num_inputs, 6)
        self.bn = torch.nn.BatchNorm1d(3)
        self.head = torch.nn.Linear(3, num_outputs)

    def forward(self, x, masks=None):
        value, gate = self.both(x).split(3, 1)
        return self.head(torch.sigmoid(gate) * self.bn(value))


def convert(s):
    w, b = s["both.weight"].T, s["both.bias"]
    return {
        "params": {
            "Dense_0": {"kernel": w[:, :3], "bias": b[:3]},
            "Dense_1": {"kernel": w[:, 3:], "bias": b[3:]},
            "Dense_2": {"kernel": s["head.weight"].T, "bias": s["head.bias"]},
            "BatchNorm_0": {"scale": s["bn.weight"], "bias": s["bn.bias"]},
        },
        "batch_stats": {
            "BatchNorm_0": {"mean": s["bn.running_mean"], "var": s["bn.running_var"]}
        },
    }
"""
"""A pair whose names and layouts differ, with running statistics."""


def experiment(folder: pathlib.Path, text: str, **changes) -> Experiment:
    """Returns an experiment with the network of a file, which is written."""
    path = folder / "net.py"
    path.write_text(text)
    return Experiment(model=f"{path}:Net").replace(**changes)
