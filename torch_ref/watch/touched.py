"""Which parameters the backward passes of a step have reached: ZeRO holds zeros, or
older gradients, for the others."""

import functools

import torch

from torch_ref.watch.structure import Structure


class Touched:
    """Hooks parameters.

    Attributes:
      names: those reached.
    """

    def __init__(self, structure: Structure):
        self.names: set[str] = set()
        self._structure = structure
        self._hooks: dict[str, torch.utils.hooks.RemovableHandle] = {}

    def hook(self) -> None:
        """Hooks the parameters that train by now."""
        for name, param in self._structure.trained().items():
            if name not in self._hooks:
                touch = functools.partial(self._touch, name)
                self._hooks[name] = param.register_hook(touch)

    def unhook(self) -> None:
        """Undoes it."""
        for hook in self._hooks.values():
            hook.remove()

    def _touch(self, name: str, gradient: torch.Tensor) -> None:
        self.names.add(name)
