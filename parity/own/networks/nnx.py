"""A flax.nnx module behind one call.

Dtypes that layers were built with are lifted as in `linen`.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flax import nnx

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.patches import Patch, put
from parity.own.networks.binding import bind
from parity.own.networks.network import (
    NO_CHANGE,
    Activations,
    Attributes,
    Call,
    Change,
    Leaves,
    attributes_of,
    keep,
)
from parity.own.tree import Structure


class NnxNetwork:
    """A flax.nnx module."""

    def __init__(self, module: nnx.Module, structure: Structure):
        self._kind = type(module)
        self._graph, state = nnx.split(module)
        self._state = dict(nnx.to_flat_state(state))
        self._paths = {"/".join(map(str, path)): path for path in self._state}
        missing = [name for name in structure.names if name not in self._paths]
        if missing:
            raise UserError(
                f"convert: {missing[0]} is no variable of the nnx module; it has "
                f"{', '.join(list(self._paths)[:6])}, ..."
            )

    def __call__(
        self,
        leaves: Leaves,
        inputs: Mapping[str, Any],
        exact: bool,
        change: Change = NO_CHANGE,
    ) -> Call:
        """See `Network`."""
        module = self._copy({self._paths[name]: leaf for name, leaf in leaves.items()})
        module.train()
        layers = {id(layer): path for path, layer in nnx.iter_modules(module)}
        for _, layer in nnx.iter_modules(module):
            _set(layer, change.of(layer) | ({"dtype": None} if exact else {}))

        places, keywords = bind(self._kind.__call__, "model", inputs)
        activations: Activations = OrderedDict()
        with _watched_classes(module, layers, activations):
            outputs = module(*places, **keywords)
        after = dict(nnx.to_flat_state(nnx.state(module, nnx.BatchStat)))
        changed = {"/".join(map(str, path)): v[...] for path, v in after.items()}
        return Call(outputs, activations, changed)

    def attributes(self, names: Sequence[str]) -> Attributes:
        """See `Network`."""
        layers = (layer for _, layer in nnx.iter_modules(self._copy()))
        return attributes_of(layers, names)

    def kinds(self) -> dict[str, str]:
        """See `Network`."""
        layers = nnx.iter_modules(self._copy())
        return {"/".join(map(str, p)): type(layer).__name__ for p, layer in layers}

    def _copy(self, values: Mapping[Any, Any] = MappingProxyType({})) -> nnx.Module:
        """Returns a module of its own variables, some with other values."""
        # A trace may only change variables that were made in it, as keys are.
        state = [
            (path, variable.replace(values.get(path, variable[...])))
            for path, variable in self._state.items()
        ]
        return nnx.merge(self._graph, nnx.from_flat_state(state))

    def module_of(self, leaf: str) -> str:
        """See `Network`."""
        return "/".join(leaf.split("/")[:-1])


def _set(layer: Any, values: Mapping[str, Any]) -> None:
    """Sets attributes that a layer of a merged copy has."""
    for name, value in values.items():
        if getattr(layer, name, None) is not None:
            setattr(layer, name, value)


@contextlib.contextmanager
def _watched_classes(
    module: nnx.Module,
    layers: Mapping[int, tuple[Any, ...]],
    activations: Activations,
) -> Iterator[None]:
    """Notes the outputs of nnx layers; Python looks `__call__` up in their classes."""

    def make(plain: Callable) -> Callable:
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            output = plain(layer, *args, **kwargs)
            path = "/".join(map(str, layers.get(id(layer), ())))
            if path:
                keep(activations, path, output)
            return output

        return call

    kinds = {type(layer) for _, layer in nnx.iter_modules(module)}
    with contextlib.ExitStack() as undo:
        put(undo, [Patch(kind, "__call__", make) for kind in kinds if _calls(kind)])
        yield


def _calls(kind: type) -> bool:
    return any("__call__" in vars(parent) for parent in kind.__mro__)
