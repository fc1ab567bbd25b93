"""Where a loop with DeepSpeed's engine tells of its backward passes and steps."""

import contextlib
import functools
from typing import Any

import torch

from jaxnn.experiment.patches import Patch, put
from torch_ref import engine_readers
from torch_ref.watch.backward import Backward
from torch_ref.watch.engine import Engine
from torch_ref.watch.losses import Losses
from torch_ref.watch.watcher import Watcher


class EngineHooks:
    """Watches an engine's `backward`, `scale` and `step`, and torch's own backward."""

    def __init__(self, watcher: Watcher, subject: Engine):
        self._watcher = watcher
        self._subject = subject
        self._engine = subject.engine
        self._losses = Losses()

    def put(self, undo: contextlib.ExitStack) -> None:
        """Begins; closing `undo` ends it."""
        torch_backward = Backward(
            self._watcher.forwards, self._losses, self._share, self._note_gradients
        )
        put(
            undo,
            [
                Patch(self._engine, "backward", self._backward),
                Patch(self._engine, "scale", self._losses.watch),
                Patch(self._engine, "step", self._step),
                Patch(torch.autograd, "backward", torch_backward),
            ],
        )

    def _backward(self, original: Any) -> Any:
        @functools.wraps(original)
        def run(loss: Any, retain_graph: bool = False, scale_wrt_gas: bool = True):
            result = self._watcher.forwards.backward(
                functools.partial(self._losses.value, loss),
                self._share(scale_wrt_gas),
                functools.partial(original, loss, retain_graph, scale_wrt_gas),
            )
            self._note_gradients()
            return result

        return run

    def _step(self, original: Any) -> Any:
        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any):
            is_managed = self._engine.managed_gradient_accumulation()
            if is_managed and not self._subject.is_last():
                return original(*args, **kwargs)
            self._watcher.before_step()
            before = self._subject.updates()
            result = original(*args, **kwargs)
            self._losses.forget()
            self._watcher.after_step(self._subject.skipped(before))
            return result

        return run

    def _share(self, scaled_by_parts: bool = True) -> float:
        """Returns the share of a loss in the step's."""
        parts = self._engine.gradient_accumulation_steps() if scaled_by_parts else 1
        return 1 / (parts * self._subject.world_size)

    def _note_gradients(self) -> None:
        if self._subject.is_last() and self._watcher.has_passes:
            scale = engine_readers.loss_scale(self._engine)
            self._watcher.note_gradients(self._subject.gradients(), scale, 1.0)
