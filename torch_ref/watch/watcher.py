"""Follows training from optimizer step to optimizer step, and writes each."""

import contextlib
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError
from torch_ref.watch import assembly, sharing
from torch_ref.watch.folder import Folder
from torch_ref.watch.forwards import Forwards
from torch_ref.watch.listener import unheard
from torch_ref.watch.meta import describe
from torch_ref.watch.notes import Notes
from torch_ref.watch.state import State
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
        self._folder = folder
        self._undo = undo
        self._notes = Notes()
        self._state = State(subject, self._notes)
        self.forwards = Forwards(subject, limit, self._notes, self._begin_step)
        self._forget()

    @property
    def has_passes(self) -> bool:
        """True if backward was called since the last step."""
        return bool(self.forwards.ended)

    @unheard
    def note_gradients(self, grads: Tensors, loss_scale: float, factor: float) -> None:
        """Keeps the gradients that the last backward pass has left.

        Args:
          grads: not clipped.
          loss_scale: scale of the step.
          factor: what they are still multiplied by.
        """
        self._grads = self._state.gradients(grads, factor)
        self._loss_scale = loss_scale

    @unheard
    def before_step(self) -> None:
        """Reads what the optimizer is about to use."""
        self.forwards.rest()
        self._begin_step()
        self._read |= self._state.before_update()

    @unheard
    def after_step(self, skipped: bool) -> None:
        """Reads what the step has made, and writes it; after the last one, ends."""
        self._read |= self._state.after_update()
        self._write(skipped)
        self._forget()
        self.done += 1
        if self.done == self.steps:
            self._undo.close()

    def require_steps(self) -> None:
        """Raises UserError if no step has been recorded."""
        if not self.done:
            raise UserError(
                "own.record: no optimizer step happened inside the context; train the "
                "recorded model in it, up to engine.step() or optimizer.step()"
            )

    def _begin_step(self) -> None:
        """Reads what the first forward pass of a step starts from."""
        if not self._read:
            self.subject.structure.renew()
            self._read = self._state.at_start()

    def _write(self, skipped: bool) -> None:
        mine = assembly.seen(self.forwards.ended, self.forwards.touched.names)
        if not mine["passes"]:
            self._notes.absent["passes"] = (
                "no forward pass of the model itself was seen"
            )
        subject = self.subject
        everyone = sharing.gather(mine, subject.rank, subject.world_size)
        if not everyone:
            return
        for theirs in everyone:
            self._notes.absent |= theirs["absent"]
        passes = sharing.interleave([theirs["passes"] for theirs in everyone])
        touched = set().union(*(theirs["touched"] for theirs in everyone))
        grads = {n: grad for n, grad in self._grads.items() if n in touched}
        tensors = assembly.step(self._read, passes, grads, self._loss_scale, skipped)
        meta = {} if self.done else describe(self, len(passes), len(mine["passes"]))
        self._folder.put(tensors, meta, self._notes.entries())

    def _forget(self) -> None:
        """Begins a step."""
        self.forwards.forget()
        self._read: dict[str, Any] = {}
        self._grads: dict[str, np.ndarray] = {}
        self._loss_scale = 1.0
