"""Follows training from forward pass to optimizer step, and writes each step."""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from torch_ref.watch import inputs, masks, moments, sharing
from torch_ref.watch.arrays import all_wide, exact, tensors_in
from torch_ref.watch.folder import Folder
from torch_ref.watch.listener import Listener, unheard
from torch_ref.watch.meta import autocast_of, describe
from torch_ref.watch.passes import Pass, layers_of
from torch_ref.watch.subject import Subject, Tensors


class Watcher:
    """Knows where in a step training is; what calls it differs from stack to stack.

    Args:
      subject: what trains.
      folder: where steps go; used on rank 0 alone.
      steps: optimizer steps to record.
      first_step: number of the first one, for meta.json.
      limit: bytes beyond which an input is a digest.
      undo: closed after the last step; everything that was hooked is undone by it.
    """

    def __init__(
        self,
        subject: Subject,
        folder: Folder,
        steps: int,
        first_step: int,
        limit: int,
        undo: contextlib.ExitStack,
    ):
        self.subject = subject
        self.steps = steps
        self.done = 0
        self.first_step = first_step
        self.autocast: str | None = None
        self._folder = folder
        self._limit = limit
        self._undo = undo
        self._listener = Listener(self._cannot_reach)
        self._absent: dict[str, str] = {}
        self._unreachable: list[str] = []
        self._touched: set[str] = set()
        self._hooked: set[str] = set()
        self._in_backward = False
        self._forget()

    def start(self) -> None:
        """Hooks the model, and begins to listen."""
        self._listener.__enter__()
        self._undo.callback(self._listener.leave)
        model = self.subject.model
        begin = model.register_forward_pre_hook(
            self._begin, prepend=True, with_kwargs=True
        )
        hooks = [begin, model.register_forward_hook(self._end)]
        for name, layer in layers_of(model).items():
            note = functools.partial(self._note, name)
            hooks.append(layer.register_forward_hook(note))
        for hook in hooks:
            self._undo.callback(hook.remove)

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
        self._listener.rest()
        self._in_backward = True
        try:
            result = run()
        finally:
            self._in_backward = False
        reached = [forward for forward in self._forwards if forward.reached]
        for forward in reached:
            forward.add_loss(value, weight)
            forward.reached = False
        if len(reached) > 1:
            self._absent["passes"] = (
                f"one loss came from {len(reached)} forward passes; each holds the "
                "whole of it"
            )
        return result

    @property
    def is_inside_backward(self) -> bool:
        """True while a backward pass runs, which may call others."""
        return self._in_backward

    @property
    def has_passes(self) -> bool:
        """True if backward was called since the last step."""
        return any(forward.loss is not None for forward in self._forwards)

    @unheard
    def note_gradients(self, grads: Tensors, loss_scale: float) -> None:
        """Keeps the gradients that the last backward pass has left.

        Args:
          grads: unscaled, not clipped.
          loss_scale: scale of the step.
        """
        self._grads = all_wide(grads)
        self._loss_scale = loss_scale

    def drop_passes(self) -> None:
        """Forgets passes whose gradients were thrown away."""
        self._forwards = []
        self._touched.clear()

    @unheard
    def before_step(self) -> None:
        """Reads what the optimizer is about to use."""
        self._listener.rest()
        if self._before is None:
            self._before = self._state()
        subject = self.subject
        self._before |= {
            "moments": self._moments(),
            "optimizer_step": np.int32(subject.updates()),
            "groups": {str(g): dict(v) for g, v in enumerate(subject.groups())},
            "counters": self._counters(),
        }

    @unheard
    def after_step(self, skipped: bool) -> None:
        """Reads what the step has made, and writes it; after the last one, ends."""
        before = self._before or {}
        updated = {
            "updated": all_wide(self.subject.masters()),
            "updated_buffers": _exact(self.subject.buffers()),
            "updated_moments": self._moments(),
        }
        self._write(before | updated, skipped)
        self._forget()
        self.done += 1
        if self.done == self.steps:
            self._undo.close()

    def _write(self, tensors: dict[str, Any], skipped: bool) -> None:
        ended = [forward for forward in self._forwards if forward.loss is not None]
        if not ended:
            self._absent["passes"] = "no forward pass of the model itself was seen"
        mine = [forward.tensors() for forward in ended]
        unread = {
            n: why for forward in ended for n, why in forward.inputs.unread.items()
        }
        subject = self.subject
        shared = (mine, self._touched, unread)
        everyone = sharing.gather(shared, subject.rank, subject.world_size)
        if not everyone:
            return
        passes = sharing.interleave([theirs for theirs, _, _ in everyone])
        touched = set().union(*(names for _, names, _ in everyone))
        for _, _, reasons in everyone:
            self._absent |= {f"inputs/{name}": why for name, why in reasons.items()}
        grads = {n: grad for n, grad in self._grads.items() if n in touched}
        scalars = self._scalars(tensors, passes, grads, skipped)
        numbered = {str(number): one for number, one in enumerate(passes)}
        self._folder.write(
            tensors | scalars | {"passes": numbered, "grads": grads},
            lambda: describe(self, len(passes), len(mine)),
            {"absent": self._absent, "unreachable_dropout": self._unreachable},
        )

    def _scalars(
        self, tensors: dict[str, Any], passes: list[Any], grads: Any, skipped: bool
    ) -> dict[str, Any]:
        loss = sum(float(one["weight"]) * float(one["loss"]) for one in passes)
        return {
            "loss": np.float32(loss),
            "grad_norm": trace.grad_norm(grads.values(), skipped),
            "loss_scale": np.float32(self._loss_scale),
            "skipped": np.bool_(skipped),
            "learning_rate": np.float32(tensors["groups"]["0"]["lr"]),
        }

    def _state(self) -> dict[str, Any]:
        """What a forward pass starts from."""
        weights = self.subject.forward_weights()
        return {
            "params": all_wide(self.subject.masters()),
            "forward": {name: exact(value) for name, value in weights.items()},
            "buffers": _exact(self.subject.buffers()),
        }

    def _moments(self) -> dict[str, Any]:
        optimizer = self.subject.optimizer
        for key in moments.unknown(optimizer):
            self._absent[f"moments/{key}"] = "the trace has no place for it"
        return {kind: all_wide(v) for kind, v in self.subject.moments().items()}

    def _counters(self) -> dict[str, np.ndarray]:
        most = self.subject.updates()
        counters = self.subject.counters().items()
        return {
            n: np.asarray(count, np.int32) for n, count in counters if count != most
        }

    def _forget(self) -> None:
        """Begins a step."""
        self._forwards: list[Pass] = []
        self._open: Pass | None = None
        self._before: dict[str, Any] | None = None
        self._grads: dict[str, np.ndarray] = {}
        self._loss_scale = 1.0
        self._touched.clear()

    @unheard
    def _begin(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """Forward pre-hook of the model."""
        trains = torch.is_grad_enabled() and model.training
        if not trains or self._in_backward:
            return
        if self._before is None:
            self._before = self._state()
        self._hook_parameters()
        self._note_autocast()
        self._open = Pass(inputs.read(model, args, kwargs, self._limit))
        known = [*tensors_in((args, kwargs)), *model.parameters(), *model.buffers()]
        self._listener.begin(self._open, known)

    @unheard
    def _end(self, model: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of the model."""
        if self._open is None or self._in_backward:
            return
        self._open.end(output)
        self._listener.end(output)
        self._forwards.append(self._open)
        self._open = None

    @unheard
    def _note(self, name: str, layer: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of a layer."""
        if self._open is None or self._in_backward:
            return
        self._note_autocast()
        if masks.drops_inside(layer):
            self._cannot_reach(name)
        self._open.note_output(name, output)

    def _note_autocast(self) -> None:
        # Accelerate begins it within the model's forward, after the model's pre-hook.
        self.autocast = self.autocast or autocast_of(self.subject.model)

    def _hook_parameters(self) -> None:
        """Learns which parameters a step uses: ZeRO holds zeros for the others."""
        for name, param in self.subject.model.named_parameters():
            if param.requires_grad and name not in self._hooked:
                self._hooked.add(name)
                hook = param.register_hook(functools.partial(self._touch, name))
                self._undo.callback(hook.remove)

    def _touch(self, name: str, gradient: torch.Tensor) -> None:
        self._touched.add(name)

    def _cannot_reach(self, name: str) -> None:
        if name not in self._unreachable:
            self._unreachable = [*self._unreachable, name]
            print(
                f"note: the dropout of {name} cannot be recorded; its steps are "
                "judged without a mask",
                file=sys.stderr,
            )

    def require_steps(self) -> None:
        """Raises UserError if no step has been recorded."""
        if not self.done:
            raise UserError(
                "own.record: no optimizer step happened inside the context; train the "
                "recorded model in it, up to engine.step() or optimizer.step()"
            )


def _exact(tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: exact(tensor) for name, tensor in tensors.items()}
