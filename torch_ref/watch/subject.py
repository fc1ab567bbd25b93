"""What is watched: the model, and how to read its training state."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from torch_ref.watch.structure import Structure

Tensors = dict[str, torch.Tensor]


class Subject(Protocol):
    """A model in training; each stack answers in its own way.

    Attributes:
      stack: its name in meta.json.
      model: the network itself, without wrappers.
      optimizer: the torch optimizer that holds the moments.
      structure: the network's parameters and buffers by name.
      rank: index of this process.
      world_size: number of ranks.
    """

    stack: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    structure: Structure
    rank: int
    world_size: int

    def masters(self) -> Tensors:
        """Returns every parameter as the optimizer holds it.

        This and the other tensors may be what trains: copy what is to be kept.
        """
        ...

    def forward_weights(self) -> Tensors:
        """Returns the 16-bit weights that a forward pass reads, if not the masters."""
        ...

    def moment(self, key: str) -> Tensors:
        """Returns a moment of every trained parameter that has one."""
        ...

    def updates(self) -> int:
        """Returns the updates applied so far."""
        ...

    def counters(self) -> dict[str, int]:
        """Returns the updates of each parameter that has a counter of its own."""
        ...

    def group_params(self) -> Sequence[Sequence[torch.Tensor]]:
        """Returns the model's parameters of each group."""
        ...

    def meta(self) -> dict[str, Any]:
        """Returns entries of meta.json that the stack alone knows."""
        ...
