"""Follows the forward passes of a step, and gives each the loss of its backward."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_ref.watch import inputs, masks
from torch_ref.watch.arrays import tensors_in
from torch_ref.watch.listener import Listener, unheard
from torch_ref.watch.meta import autocast_of
from torch_ref.watch.notes import Notes
from torch_ref.watch.passes import Pass
from torch_ref.watch.subject import Subject
from torch_ref.watch.touched import Touched


class Forwards:
    """Hooks a model and its layers.

    Args:
      subject: what trains.
      limit: bytes beyond which an input is a digest.
      notes: where to put what cannot be recorded.
      begun: called before every forward pass in training.

    Attributes:
      autocast: format that torch.autocast computed in; None without.
      touched: parameters that the backward passes have reached.
      is_inside_backward: a backward pass runs, which may call others.
    """

    def __init__(
        self, subject: Subject, limit: int, notes: Notes, begun: Callable[[], None]
    ):
        self.autocast: str | None = None
        self.touched = Touched(subject.structure)
        self.is_inside_backward = False
        self._subject = subject
        self._limit = limit
        self._notes = notes
        self._begun = begun
        self._listener = Listener(notes.cannot_reach)
        self._passes: list[Pass] = []
        self._open: Pass | None = None

    def hook(self, undo: contextlib.ExitStack) -> None:
        """Hooks all; closing `undo` unhooks it."""
        undo.callback(self._listener.rest)
        undo.callback(self.touched.unhook)
        model = self._subject.model
        begin = model.register_forward_pre_hook(
            self._begin, prepend=True, with_kwargs=True
        )
        hooks = [begin, model.register_forward_hook(self._end)]
        for name, layer in self._subject.structure.layers.items():
            note = functools.partial(self._note, name)
            hooks.append(layer.register_forward_hook(note))
        for hook in hooks:
            undo.callback(hook.remove)

    @property
    def ended(self) -> list[Pass]:
        """Those that a backward pass went through."""
        return [forward for forward in self._passes if forward.loss is not None]

    def backward(
        self, loss: Callable[[], float], weight: float, run: Callable[[], Any]
    ) -> Any:
        """Runs a backward pass, and gives its loss to the forward pass behind it.

        Args:
          loss: reads what backward is called on, unscaled.
          weight: share of the loss in the step's.
          run: the backward pass.
        """
        value = loss()
        self.rest()
        self.is_inside_backward = True
        try:
            result = run()
        finally:
            self.is_inside_backward = False
        self._give(value, weight)
        return result

    def rest(self) -> None:
        """The loss is there: nothing is listened to until the next forward pass."""
        self._listener.rest()

    def forget(self) -> None:
        """Begins a step, or drops passes whose gradients were thrown away."""
        self._passes, self._open = [], None
        self.touched.names.clear()

    def _give(self, loss: float, weight: float) -> None:
        reached = [forward for forward in self._passes if forward.reached]
        for forward in reached:
            forward.add_loss(loss, weight)
            forward.reached = False
        if len(reached) > 1:
            self._notes.absent["passes"] = (
                f"one loss came from {len(reached)} forward passes; each holds the "
                "whole of it"
            )

    @unheard
    def _begin(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """Forward pre-hook of the model."""
        trains = torch.is_grad_enabled() and model.training
        if not trains or self.is_inside_backward:
            return
        self._begun()
        self.touched.hook()
        self._note_autocast()
        self._open = Pass(inputs.read(model, args, kwargs, self._limit))
        structure = self._subject.structure
        held = [*structure.params().values(), *structure.buffers().values()]
        self._listener.begin(self._open, [*tensors_in((args, kwargs)), *held])

    @unheard
    def _end(self, model: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of the model."""
        if self._open is None or self.is_inside_backward:
            return
        self._open.end(output)
        self._listener.end(output)
        self._passes.append(self._open)
        self._open = None

    @unheard
    def _note(self, name: str, layer: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of a layer."""
        if self._open is None or self.is_inside_backward:
            return
        self._note_autocast()
        if masks.drops_inside(layer):
            self._notes.cannot_reach(name)
        self._open.note_output(name, output)

    def _note_autocast(self) -> None:
        # Accelerate begins it within the model's forward, after the model's pre-hook.
        self.autocast = self.autocast or autocast_of(self._subject.structure.device)
