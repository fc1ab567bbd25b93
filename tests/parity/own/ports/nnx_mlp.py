"""A perceptron in flax.nnx, of a torch module whose forward returns the loss."""

import jax
import numpy as np
import torch
from flax import nnx
from torch.nn import functional

from tests.parity.own.ports import faults, layers, weights

FEATURES, HIDDEN, CLASSES, ROWS = 8, 16, 4, 16
EPSILON, RATE = 1e-5, 0.1


class TorchMLP(torch.nn.Module):
    """Loss of x, [batch, FEATURES], and labels, [batch].

    Attributes:
      dropout: share of hidden units that is left out.
    """

    def __init__(self, dropout: float):
        super().__init__()
        self.hidden = torch.nn.Linear(FEATURES, HIDDEN)
        self.norm = torch.nn.LayerNorm(HIDDEN, EPSILON)
        self.relu = torch.nn.ReLU()
        self.dropout = torch.nn.Dropout(dropout)
        self.out = torch.nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.norm(self.hidden(x)))
        return self.loss_function(self.out(self.dropout(hidden)), labels)

    def loss_function(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, labels)


def torch_model(seed: int, dropout: float = RATE) -> torch.nn.Module:
    return weights.randomized(seed, lambda: TorchMLP(dropout))


def batch(step: int) -> dict[str, torch.Tensor]:
    """Returns x, [ROWS, FEATURES], and labels, [ROWS]."""
    generator = torch.Generator().manual_seed(4000 + step)
    return {
        "x": torch.randn(ROWS, FEATURES, generator=generator),
        "labels": torch.randint(0, CLASSES, (ROWS,), generator=generator),
    }


def training_loss(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], step: int
) -> torch.Tensor:
    return module(**inputs)


class MLP(nnx.Module):
    """Logits, [batch, CLASSES], of x, [batch, FEATURES]."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(FEATURES, HIDDEN, rngs=rngs)
        # nnx's own epsilon is 1e-6, torch's is 1e-5.
        self.norm = nnx.LayerNorm(
            HIDDEN, epsilon=EPSILON, use_fast_variance=False, rngs=rngs
        )
        self.dropout = nnx.Dropout(RATE, rngs=rngs)
        self.out = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


model = MLP(nnx.Rngs(0))


def loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of labels, in the logits' dtype."""
    return layers.cross_entropy(outputs, labels)


def convert(state: dict[str, np.ndarray]) -> dict:
    """Returns the tree of the module's `nnx.Param`s."""
    dense = {
        name: {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}
        for name in ("hidden", "out")
    }
    return {
        **dense,
        "norm": {"scale": state["norm.weight"], "bias": state["norm.bias"]},
    }


def _summed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, labels, reduction="sum")


FAULTS = {
    "norm_epsilon": faults.Fault(
        "norm",
        "LayerNorm adds 1e-6 to the variance instead of 1e-5",
        faults.attribute(torch.nn.LayerNorm, eps=1e-6),
    ),
    "gelu": faults.Fault(
        "relu", "GELU instead of ReLU", faults.output("relu", faults.erf_gelu)
    ),
    "no_bias": faults.Fault(
        "out", "the last layer has no bias", faults.attribute("out", bias=None)
    ),
    "detached_hidden": faults.Fault(
        "hidden",
        "the first layer passes no gradient to its weight",
        faults.detached("hidden"),
        shows_in="gradients",
    ),
    "summed_loss": faults.Fault(
        "",
        "the loss is the sum over rows instead of the mean",
        faults.attribute("", loss_function=_summed),
    ),
}
