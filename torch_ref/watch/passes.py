"""One forward pass, and the loss that its backward pass was called on."""

from typing import Any

import numpy as np
import torch

from torch_ref.watch import arrays
from torch_ref.watch.inputs import Inputs


class Pass:
    """What is recorded of a forward pass.

    Attributes:
      inputs: what it was given.
      targets: other tensors that the loss was computed from.
      masks: its dropouts' masks.
      activations: {layer: output}, in the order in which they end.
      loss: what backward was called on, unscaled; None before that.
      weight: share of the loss in the step's.
      reached: a backward pass went through its output.
    """

    def __init__(self, inputs: Inputs):
        self.inputs = inputs
        self.targets: list[np.ndarray] = []
        self.masks: list[np.ndarray] = []
        self.activations: dict[str, np.ndarray] = {}
        self.loss: float | None = None
        self.weight = 1.0
        self.reached = False

    def note_output(self, name: str, output: Any) -> None:
        """Copies the first floating tensor of a layer's output, of its first call."""
        found = [t for t in arrays.tensors_in(output)[:1] if t.is_floating_point()]
        if found and name not in self.activations:
            self.activations[name] = arrays.wide(found[0])

    def end(self, output: Any) -> None:
        """Waits for a backward pass through the output."""
        for tensor in arrays.tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(self._reach)

    def add_loss(self, loss: float, weight: float) -> None:
        """Adds a loss; several are as many terms of one."""
        self.loss = loss + (self.loss or 0.0)
        self.weight = weight

    def tensors(self) -> dict[str, Any]:
        """Returns the pass by the trace's names, without the empty kinds."""
        kinds = {
            "inputs": self.inputs.values,
            "digests": self.inputs.digests,
            "targets": numbered(self.targets),
            "masks": numbered(self.masks),
            "activations": self.activations,
        }
        scalars = {"loss": np.float32(self.loss), "weight": np.float32(self.weight)}
        return {kind: value for kind, value in kinds.items() if value} | scalars

    def _reach(self, gradient: torch.Tensor) -> None:
        # Nothing is returned: the gradient stays as it is.
        self.reached = True


def numbered(values: list[Any]) -> dict[str, Any]:
    """["a", "b"] -> {"0": "a", "1": "b"}."""
    return {str(number): value for number, value in enumerate(values)}
