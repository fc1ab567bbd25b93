"""Finds the tensors that a loss was computed from beside the outputs of the model."""

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from torch_ref.watch import arrays


class Targets:
    """Notes every tensor without gradient that enters a computation.

    What has been computed from other tensors since the forward pass began is none:
    those others are.

    Args:
      known: tensors that are recorded elsewhere: inputs, parameters, buffers.
    """

    def __init__(self, known: Iterable[torch.Tensor]):
        self.values: list[np.ndarray] = []
        # By id, with a weak reference: the id of a dead tensor is given out again.
        self._known: dict[int, weakref.ref[torch.Tensor]] = {}
        self.know(known)

    def know(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts tensors as recorded, or as computed."""
        for tensor in tensors:
            self._known[id(tensor)] = weakref.ref(tensor)

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Calls a function of torch, notes what entered it, returns its result."""
        given = arrays.tensors_in(args) + arrays.tensors_in(kwargs)
        fresh = [tensor for tensor in given if self._is_fresh(tensor)]
        # A call in place, of which no value would be left to note afterwards.
        early = _works_in_place(func)
        if early:
            self._note(fresh)
        result = func(*args, **kwargs)
        computed = arrays.tensors_in(result)
        # Reading a shape or a number is no computation; making a constant is one of
        # which nothing else is known.
        if computed and given:
            if not early:
                self._note(fresh)
            self.know(t for t in computed if not t.requires_grad)
        return result

    def _note(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            if self._is_fresh(tensor):
                self.values.append(arrays.exact(tensor))
                self.know([tensor])

    def _is_fresh(self, tensor: torch.Tensor) -> bool:
        if tensor.requires_grad:
            return False
        known = self._known.get(id(tensor))
        return known is None or known() is not tensor


def _works_in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")
