"""Listens to torch's functions: dropouts in a forward pass, targets after it."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

from torch_ref.watch import arrays, masks
from torch_ref.watch.passes import Pass
from torch_ref.watch.targets import Targets


class Listener(TorchFunctionMode):
    """Listens from a forward pass to its backward pass; every call of torch pays.

    Args:
      unreachable: called with the name of what drops where no mask can be had.
    """

    def __init__(self, unreachable: Callable[[str], None]):
        super().__init__()
        self._unreachable = unreachable
        self._pass: Pass | None = None
        self._targets = Targets(())
        self._in_forward = False
        # Modes of the program that have begun before, and end after this one.
        self._below = len(_get_current_function_mode_stack())

    def begin(self, current: Pass, known: list[torch.Tensor]) -> None:
        """A forward pass begins; `known` are its inputs, parameters and buffers."""
        self._pass, self._targets, self._in_forward = current, Targets(known), True
        current.targets = self._targets.values
        if not self._is_on():
            self._put()

    def end(self, output: Any) -> None:
        """The forward pass has ended; its loss is computed next."""
        self._targets.know(arrays.tensors_in(output))
        self._in_forward = False

    def rest(self) -> None:
        """Listens to nothing until the next forward pass."""
        self._pass = None
        # While torch runs a call for this mode, as that of backward, it has taken the
        # mode off itself and will put it back: it goes at the next rest.
        if self._is_on():
            self._take()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._pass is None:
            return func(*args, **kwargs)
        if self._in_forward:
            return self._within(self._pass, func, args, kwargs)
        # What is computed without gradients, as a metric, does not make the loss.
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return self._targets.call(func, args, kwargs)

    def _within(self, current: Pass, func: Any, args: Any, kwargs: Any) -> Any:
        drops = func in masks.SPECIAL
        call = functools.partial(self._drop, current, func) if drops else func
        result = call(*args, **kwargs)
        self._targets.know(_constants(result))
        return result

    def _drop(self, current: Pass, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a function that may drop, and keeps its mask."""
        if func in masks.DROPOUTS and masks.rate(func, args, kwargs) > 0:
            result, mask = masks.drop(func, args, kwargs)
            if mask is None:
                self._unreachable(func.__name__)
            else:
                current.masks.append(mask)
            return result
        if masks.hidden_rate(func, args, kwargs) > 0:
            self._unreachable(func.__name__)
        return func(*args, **kwargs)

    def _is_on(self) -> bool:
        return any(mode is self for mode in _get_current_function_mode_stack())

    def _put(self) -> None:
        """Goes below the modes that have begun within the recording: each takes off
        what is on top when it ends."""
        count = len(_get_current_function_mode_stack()) - self._below
        above = [_pop_mode() for _ in range(max(count, 0))]
        for mode in [self, *reversed(above)]:
            _push_mode(mode)

    def _take(self) -> None:
        above: list[Any] = []
        while (mode := _pop_mode()) is not self:
            above.append(mode)
        for mode in reversed(above):
            _push_mode(mode)


def unheard(method: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function's own calls of torch pass by every mode: that takes half."""

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return method(*args, **kwargs)

    return run


def _constants(result: Any) -> list[torch.Tensor]:
    """What a loss could take for a target: computed, without a gradient."""
    return [tensor for tensor in arrays.tensors_in(result) if not tensor.requires_grad]
