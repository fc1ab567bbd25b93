"""What is watched: the model, and how to read its training state."""

import functools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from torch_ref.watch import moments
from torch_ref.watch.structure import Structure

Tensors = dict[str, torch.Tensor]


class Subject:
    """A model in training. What every stack answers in its own way raises here.

    Attributes:
      model: the network itself, without wrappers.
      optimizer: the torch optimizer that holds the moments.
      rank: index of this process.
      world_size: number of ranks.
    """

    stack = "torch"
    model: nn.Module
    optimizer: torch.optim.Optimizer
    rank = 0
    world_size = 1

    def masters(self) -> Tensors:
        """Returns every parameter as the optimizer holds it.

        This and the other tensors may be what trains: copy what is to be kept.
        """
        raise NotImplementedError

    def forward_weights(self) -> Tensors:
        """Returns the 16-bit weights that a forward pass reads, if not the masters."""
        raise NotImplementedError

    def moment(self, key: str) -> Tensors:
        """Returns a moment of every trained parameter that has one."""
        raise NotImplementedError

    def updates(self) -> int:
        """Returns the updates applied so far."""
        raise NotImplementedError

    def group_params(self) -> Sequence[Sequence[torch.Tensor]]:
        """Returns the model's parameters of each group."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        """Returns the updates of each parameter that has a counter of its own."""
        return {}

    def meta(self) -> dict[str, Any]:
        """Returns entries of meta.json that the stack alone knows."""
        raise NotImplementedError

    @functools.cached_property
    def structure(self) -> Structure:
        """Parameters and buffers by name."""
        return Structure(self.model)

    @functools.cached_property
    def device(self) -> str:
        """Kind of device that the model is on."""
        return next((p.device.type for p in self.model.parameters()), "cpu")

    def names(self) -> dict[int, str]:
        """Returns {id of a parameter: its name}."""
        return {id(param): name for name, param in self.structure.params().items()}

    def moments(self) -> dict[str, Tensors]:
        """Returns {"first" or "second": {name: moment}}."""
        held = moments.keys(self.optimizer)
        found = {kind: self.moment(key) for kind, key in held.items()}
        for kind, key in held.items():
            if key == "momentum_buffer":
                found[kind] = self._with_momentum(found[kind])
        return {kind: values for kind, values in found.items() if values}

    def groups(self) -> list[dict[str, np.ndarray]]:
        """Returns the hyper-parameters of each group: numbers and pairs, float64."""
        # DeepSpeed's Adam holds its kind of decay outside the groups.
        mode = getattr(self.optimizer, "adam_w_mode", None)
        common = {} if mode is None else {"adam_w_mode": np.asarray(mode, np.float64)}
        return [_numbers(group) | common for group in self.optimizer.param_groups]

    def buffers(self) -> Tensors:
        """Returns the model's buffers."""
        return self.structure.buffers()

    def group_names(self) -> list[list[str]]:
        """Returns the names of the parameters of each group."""
        names = self.names()
        return [
            [names[id(param)] for param in group if id(param) in names]
            for group in self.group_params()
        ]

    def _with_momentum(self, found: Tensors) -> Tensors:
        """Drops what a group without momentum would only seem to have."""
        pairs = zip(self.group_names(), self.optimizer.param_groups)
        without = {n for names, g in pairs if not g.get("momentum") for n in names}
        return {name: value for name, value in found.items() if name not in without}


def _numbers(group: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the entries of a group that are numbers, or sequences of them."""
    found = {}
    for key, value in group.items():
        if isinstance(value, torch.Tensor):
            value = value.tolist()
        values = value if isinstance(value, tuple | list) else [value]
        real = [isinstance(v, numbers.Real) and math.isfinite(v) for v in values]
        if key != "params" and all(real):
            found[key] = np.asarray(value, np.float64)
    return found
