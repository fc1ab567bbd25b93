"""Where a loop without an engine tells of its backward passes and steps."""

import contextlib
import functools
from typing import Any

import torch

from jaxnn.experiment.patches import Patch, put
from torch_ref.watch.backward import Backward
from torch_ref.watch.losses import Losses
from torch_ref.watch.plain import Plain
from torch_ref.watch.watcher import Watcher


class PlainHooks:
    """Watches torch's backward, an optimizer's steps and a scaler's.

    Args:
      watcher: what is told.
      subject: the model and its optimizer.
      scaler: torch's GradScaler; None without.
    """

    def __init__(self, watcher: Watcher, subject: Plain, scaler: Any):
        self._watcher = watcher
        self._subject = subject
        self._scaler = scaler
        self._losses = Losses()
        self._backward = Backward(
            watcher.forwards, self._losses, self._share, self._note_gradients
        )
        # Where the scaler's step is: whether it runs, and has called the optimizer's.
        self._is_scaling = False
        self._has_stepped = False
        # An optimizer derived from another calls the step of that one within its own.
        self._depth = 0

    def put(self, undo: contextlib.ExitStack) -> None:
        """Begins; closing `undo` ends it."""
        optimizer, model = self._subject.optimizer, self._subject.model
        for handle in (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            model.register_forward_pre_hook(self._drop_if_thrown_away, prepend=True),
        ):
            undo.callback(handle.remove)
        patches = [Patch(torch.autograd, "backward", self._backward)]
        if self._scaler is not None:
            patches += [
                Patch(self._scaler, "scale", self._losses.watch),
                Patch(self._scaler, "step", self._scaler_step),
            ]
        put(undo, patches)

    def _share(self) -> float:
        """Returns the share of a loss in the step's."""
        return 1 / self._subject.world_size

    def _note_gradients(self) -> None:
        scale = float(self._scaler.get_scale()) if self._scaler else 1.0
        factor = scale if self._backward.scaled else 1.0
        self._watcher.note_gradients(self._subject.gradients(), scale, factor)

    def _drop_if_thrown_away(self, *_: Any) -> None:
        if self._watcher.has_passes and not self._subject.has_gradients():
            self._watcher.forwards.forget()

    def _before(self, *_: Any) -> None:
        self._has_stepped = True
        self._depth += 1
        if self._depth == 1 and not self._is_scaling:
            self._watcher.before_step()

    def _after(self, *_: Any) -> None:
        self._depth -= 1
        if not self._depth and not self._is_scaling:
            self._end(False)

    def _end(self, skipped: bool) -> None:
        self._subject.counted += not skipped
        self._losses.forget()
        self._watcher.after_step(skipped)

    def _scaler_step(self, original: Any) -> Any:
        @functools.wraps(original)
        def run(optimizer: Any, *args: Any, **kwargs: Any):
            if not is_same(optimizer, self._subject.optimizer):
                return original(optimizer, *args, **kwargs)
            self._watcher.before_step()
            result = self._within(original, optimizer, *args, **kwargs)
            overflowed = has_overflowed(self._scaler, optimizer)
            self._end(overflowed or not self._has_stepped)
            return result

        return run

    def _within(self, step: Any, *args: Any, **kwargs: Any) -> Any:
        self._is_scaling, self._has_stepped = True, False
        try:
            return step(*args, **kwargs)
        finally:
            self._is_scaling = False


def is_same(optimizer: Any, watched: torch.optim.Optimizer) -> bool:
    """True if an optimizer, or the one that it wraps, is the watched one."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return optimizer is watched or inner is watched


def has_overflowed(scaler: Any, optimizer: Any) -> bool:
    """True if the scaler has found an infinity; fused optimizers skip by themselves."""
    found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
    return any(bool(value) for value in found.values())
