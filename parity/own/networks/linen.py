"""A flax.linen module behind one call.

A layer that was built with a dtype of its own would round where the float64 reference
must not, so there that dtype is lifted.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

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

KEY_NAMES = ("params", "dropout")
"""Streams of random keys that flax modules ask for."""


class LinenNetwork:
    """A flax.linen module."""

    def __init__(self, module: nn.Module, structure: Structure):
        self._module = module
        self._structure = structure
        collections = {name.split("/")[0] for name in structure.names}
        self._is_bare = "params" not in collections
        self._mutable = [] if self._is_bare else sorted(collections - {"params"})
        self._seen: dict[str, Any] = {}

    def __call__(
        self,
        leaves: Leaves,
        inputs: Mapping[str, Any],
        exact: bool,
        change: Change = NO_CHANGE,
    ) -> Call:
        """See `Network`."""
        tree = self._structure.unflatten(leaves)
        variables = {"params": tree} if self._is_bare else tree
        places, keywords = bind(type(self._module).__call__, "model", inputs)
        activations: Activations = OrderedDict()
        with nn.intercept_methods(self._noting(activations, exact, change)):
            outputs = self._module.apply(
                variables,
                *places,
                rngs={name: jax.random.key(0) for name in KEY_NAMES},
                mutable=self._mutable or False,
                **keywords,
            )
        state: dict[str, jax.Array] = {}
        if self._mutable:
            outputs, changed = outputs
            state = Structure(changed).flatten(changed)
        return Call(outputs, activations, state)

    def _noting(
        self, activations: Activations, exact: bool, change: Change
    ) -> Callable:
        """Returns an interceptor that notes the outputs of modules."""

        def note(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
            layer = context.module
            self._seen["/".join(layer.path)] = layer
            values = change.of(layer)
            if exact and getattr(layer, "dtype", None) is not None:
                values["dtype"] = None
            with _changed(layer, values):
                output = call(*args, **kwargs)
            path = "/".join(layer.path)
            if path and context.method_name == "__call__":
                keep(activations, path, output)
            return output

        return note

    def attributes(self, names: Sequence[str]) -> Attributes:
        """See `Network`."""
        return attributes_of(self._seen.values(), names)

    def kinds(self) -> dict[str, str]:
        """See `Network`."""
        return {path: type(layer).__name__ for path, layer in self._seen.items()}

    def module_of(self, leaf: str) -> str:
        """See `Network`."""
        path = leaf.split("/")[:-1]
        return "/".join(path if self._is_bare else path[1:])


@contextlib.contextmanager
def _changed(layer: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Holds attributes of a bound linen layer, a frozen dataclass, at other values."""
    held = {name: getattr(layer, name) for name in values if hasattr(layer, name)}
    for name in held:
        object.__setattr__(layer, name, values[name])
    try:
        yield
    finally:
        for name, value in held.items():
            object.__setattr__(layer, name, value)
