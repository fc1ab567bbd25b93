"""Copies the training state at the three moments of a step."""

from typing import Any

import numpy as np

from torch_ref.watch import moments
from torch_ref.watch.arrays import all_exact, all_wide
from torch_ref.watch.notes import Notes
from torch_ref.watch.optimizer_state import groups, moments_of
from torch_ref.watch.subject import Subject, Tensors


class State:
    """Reads what a subject trains, by the trace's names.

    Everything is read anew each time, although a step begins where the one before has
    ended: a loop may clip weights in between, or exchange them for averages.

    Args:
      subject: what trains.
      notes: where to put what cannot be recorded.
    """

    def __init__(self, subject: Subject, notes: Notes):
        self._subject = subject
        self._notes = notes
        # Every rank takes part in a reading; what it brings is written by one.
        self._is_kept = subject.rank == 0

    def at_start(self) -> dict[str, Any]:
        """What a forward pass starts from."""
        return {
            "params": self._wide(self._subject.masters()),
            "forward": self._exact(self._subject.forward_weights()),
            "buffers": self._exact(self._subject.structure.buffers()),
        }

    def before_update(self) -> dict[str, Any]:
        """What the optimizer is about to use."""
        numbered = enumerate(groups(self._subject))
        counters = self._subject.counters()
        updates = self._subject.updates()
        return {
            "moments": self._moments(),
            "optimizer_step": np.int32(updates),
            "groups": {str(number): dict(values) for number, values in numbered},
            "counters": {
                name: np.asarray(count, np.int32)
                for name, count in counters.items()
                if count != updates
            },
        }

    def after_update(self) -> dict[str, Any]:
        """What the optimizer has made."""
        return {
            "updated": self._wide(self._subject.masters()),
            "updated_buffers": self._exact(self._subject.structure.buffers()),
            "updated_moments": self._moments(),
        }

    def gradients(self, tensors: Tensors, factor: float) -> dict[str, np.ndarray]:
        """Copies gradients that are still multiplied by a factor."""
        found = self._wide(tensors)
        if factor == 1:
            return found
        return {name: np.asarray(grad / factor) for name, grad in found.items()}

    def _wide(self, tensors: Tensors) -> dict[str, np.ndarray]:
        return all_wide(tensors) if self._is_kept else {}

    def _exact(self, tensors: Tensors) -> dict[str, np.ndarray]:
        return all_exact(tensors) if self._is_kept else {}

    def _moments(self) -> dict[str, Any]:
        for key in moments.unknown(self._subject.optimizer):
            self._notes.absent[f"moments/{key}"] = "the trace has no place for it"
        return {
            kind: self._wide(held) for kind, held in moments_of(self._subject).items()
        }
