"""A model's parameters and buffers by name, without a walk through its modules each
time."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


class Structure:
    """What `named_parameters` and `named_buffers` tell, of modules listed once.

    Between steps a module's parameters may be exchanged, and its buffers at any time;
    modules may not be added.
    """

    def __init__(self, model: nn.Module):
        self._modules = list(model.named_modules())
        self.renew()

    def renew(self) -> None:
        """Looks for the parameters again."""
        self._params: dict[str, nn.Parameter] = dict(self._named("_parameters"))

    @property
    def layers(self) -> dict[str, nn.Module]:
        """{dotted path: module}, without the model itself."""
        return {name: module for name, module in self._modules if name}

    @functools.cached_property
    def device(self) -> str:
        """Kind of device that the model is on."""
        return next((param.device.type for param in self._params.values()), "cpu")

    def params(self) -> dict[str, nn.Parameter]:
        """Returns the parameters; a tied one has its first name."""
        return self._params

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns those that are not frozen."""
        return {n: param for n, param in self.params().items() if param.requires_grad}

    def buffers(self) -> dict[str, torch.Tensor]:
        """Returns the buffers, those that no state dict holds included."""
        return dict(self._named("_buffers"))

    def _named(self, kind: str) -> Iterator[tuple[str, Any]]:
        seen = set()
        for path, module in self._modules:
            for name, tensor in getattr(module, kind).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{path}.{name}" if path else name, tensor
