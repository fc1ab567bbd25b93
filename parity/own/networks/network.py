"""What a network of anybody's is to the judge: one call, whatever it is made of."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxnn.experiment.patches import Patch

Leaves = Mapping[str, Any]
"""{name of a leaf: array}."""
Activations = OrderedDict[str, jax.Array]


class Call(NamedTuple):
    """What one forward pass gave.

    Attributes:
      outputs: what the network returned.
      activations: {path of a module: its first output}, in the order they end; jit
        sorts the keys of any other dict.
      state: {leaf: new value} of what the pass changed: running statistics.
    """

    outputs: Any
    activations: Activations
    state: dict[str, jax.Array]


class Change(NamedTuple):
    """Something else to compute in a port's layers.

    Attributes:
      kind: class of the layers whose attribute is changed; "" for none.
      name: name of the attribute.
      value: its value.
      patches: functions to replace.
    """

    kind: str = ""
    name: str = ""
    value: Any = None
    patches: tuple[Patch, ...] = ()

    def of(self, layer: Any) -> dict[str, Any]:
        """Returns {attribute: value} to set on a layer."""
        return {self.name: self.value} if type(layer).__name__ == self.kind else {}


NO_CHANGE = Change()
Attributes = dict[tuple[str, str], set[float]]
"""{(class of layers, name of an attribute): its values}."""


class Network(Protocol):
    """A network whose parameters are given with each call."""

    def attributes(self, names: Sequence[str]) -> Attributes:
        """Returns what the layers that were called last hold by these names."""
        ...

    def kinds(self) -> dict[str, str]:
        """Returns {path: class} of the layers that were called last."""
        ...

    def __call__(
        self,
        leaves: Leaves,
        inputs: Mapping[str, Any],
        exact: bool,
        change: Change = NO_CHANGE,
    ) -> Call:
        """Runs one forward pass in training mode.

        Args:
          leaves: parameters and running statistics.
          inputs: recorded inputs by name.
          exact: lift the dtypes that layers were built with.
          change: what to compute otherwise.
        """
        ...

    def module_of(self, leaf: str) -> str:
        """Returns the path of the module that a leaf belongs to."""
        ...


def keep(activations: Activations, path: str, output: Any) -> None:
    """Keeps the first output of a layer's first call, if it is a floating array."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    if path in activations or not isinstance(first, jax.Array):
        return
    if jnp.issubdtype(first.dtype, jnp.floating):
        activations[path] = first


def attributes_of(layers: Iterable[Any], names: Sequence[str]) -> Attributes:
    """Returns the numbers that layers hold by these names."""
    found: Attributes = {}
    for layer in layers:
        for name in names:
            value = getattr(layer, name, None)
            if isinstance(value, float):
                found.setdefault((type(layer).__name__, name), set()).add(value)
    return found
