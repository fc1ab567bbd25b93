"""What losses were before they were scaled."""

import functools
import weakref
from typing import Any

import torch

from torch_ref.watch import arrays


class Losses:
    """Remembers the losses of a step."""

    def __init__(self):
        self._scaled: dict[int, tuple[weakref.ref[torch.Tensor], float]] = {}

    def watch(self, scale: Any) -> Any:
        """Returns a function that scales losses, which notes them."""

        @functools.wraps(scale)
        def run(loss: Any):
            scaled = scale(loss)
            self._note(scaled, loss)
            return scaled

        return run

    def is_scaled(self, loss: Any) -> bool:
        """True if a scaler made it."""
        return all(self._of(tensor) is not None for tensor in arrays.tensors_in(loss))

    def value(self, loss: Any, grads: Any = None) -> float:
        """Returns what backward is called on, unscaled.

        Args:
          loss: one tensor or several.
          grads: what backward is given for them; None for scalars.
        """
        tensors = arrays.tensors_in(loss)
        given = arrays.tensors_in(grads) or [None] * len(tensors)
        return sum(
            value_of(tensor, grad) if (known := self._of(tensor)) is None else known
            for tensor, grad in zip(tensors, given)
        )

    def forget(self) -> None:
        """The step is over."""
        self._scaled.clear()

    def _note(self, scaled: Any, loss: Any) -> None:
        for after, before in zip(arrays.tensors_in(scaled), arrays.tensors_in(loss)):
            if before.numel() == 1:
                self._scaled[id(after)] = (weakref.ref(after), value_of(before))

    def _of(self, tensor: torch.Tensor) -> float | None:
        held, value = self._scaled.get(id(tensor), (None, 0.0))
        return value if held is not None and held() is tensor else None


def value_of(tensor: torch.Tensor, grad: torch.Tensor | None = None) -> float:
    """Returns the scalar whose gradients a backward pass computes."""
    value = tensor.detach().double()
    return float((value if grad is None else value * grad.detach().double()).sum())
