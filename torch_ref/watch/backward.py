"""torch's own backward, as a loop calls it: `loss.backward()`."""

import functools
from collections.abc import Callable
from typing import Any

from torch_ref.watch.forwards import Forwards
from torch_ref.watch.losses import Losses


class Backward:
    """Makes a watched `torch.autograd.backward` of the original.

    Args:
      forwards: told of every backward pass.
      losses: what losses were before they were scaled.
      share: returns the share of a loss in the step's.
      note: called after a backward pass.

    Attributes:
      scaled: the last loss was one that a scaler had made.
    """

    def __init__(
        self,
        forwards: Forwards,
        losses: Losses,
        share: Callable[[], float],
        note: Callable[[], None],
    ):
        self.scaled = False
        self._forwards = forwards
        self._losses = losses
        self._share = share
        self._note = note

    def __call__(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the watched function."""

        @functools.wraps(original)
        def run(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any):
            call = functools.partial(original, tensors, grad_tensors, *args, **kwargs)
            # One within another is a re-run of an activation checkpoint, or DeepSpeed.
            if self._forwards.is_inside_backward:
                return call()
            self.scaled = self._losses.is_scaled(tensors)
            value = functools.partial(self._losses.value, tensors, grad_tensors)
            result = self._forwards.backward(value, self._share(), call)
            self._note()
            return result

        return run
