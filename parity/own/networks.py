"""Anybody's JAX network behind one call: flax.linen, flax.nnx, or a plain function.

Each computes in the dtype of the parameters that it is given. A layer that was built
with a dtype of its own would round where the float64 reference must not, so there that
dtype is lifted.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.patches import Patch, put
from parity.own.binding import bind
from parity.own.tree import Structure

Leaves = Mapping[str, Any]
"""{name of a leaf: array}."""
Activations = OrderedDict[str, jax.Array]
KEY_NAMES = ("params", "dropout")
"""Streams of random keys that flax modules ask for."""


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


def wrap(model: Any, structure: Structure) -> Network:
    """Returns the network behind a flax module or a function.

    Args:
      model: flax.linen module, flax.nnx module, or apply(params, *inputs).
      structure: structure of its parameter tree.

    Raises:
      UserError: it is none of the three, a class of them, or lacks a leaf.
    """
    if isinstance(model, type):
        name = model.__name__
        raise UserError(f"model: {name} is a class; give {name}(...), one of it")
    if isinstance(model, nn.Module):
        return LinenNetwork(model, structure)
    if isinstance(model, nnx.Module):
        return NnxNetwork(model, structure)
    if callable(model):
        return FunctionNetwork(model, structure)
    raise UserError(
        f"model: a {type(model).__name__} is no flax.linen module, no flax.nnx module "
        "and no function apply(params, *inputs)"
    )


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
            state = flat(changed)
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
        return _attributes(self._seen.values(), names)

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
        return _attributes(layers, names)

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


def _attributes(layers: Iterable[Any], names: Sequence[str]) -> Attributes:
    found: Attributes = {}
    for layer in layers:
        for name in names:
            value = getattr(layer, name, None)
            if isinstance(value, float):
                found.setdefault((type(layer).__name__, name), set()).add(value)
    return found


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


class FunctionNetwork:
    """A function apply(params, *inputs); its layers cannot be watched."""

    def __init__(self, apply: Callable, structure: Structure):
        self._apply = apply
        self._structure = structure

    def __call__(
        self,
        leaves: Leaves,
        inputs: Mapping[str, Any],
        exact: bool,
        change: Change = NO_CHANGE,
    ) -> Call:
        """See `Network`."""
        places, keywords = bind(self._apply, "model", inputs)
        tree = self._structure.unflatten(leaves)
        return Call(self._apply(tree, *places, **keywords), OrderedDict(), {})

    def attributes(self, names: Sequence[str]) -> Attributes:
        """See `Network`; a function's layers cannot be seen."""
        return {}

    def module_of(self, leaf: str) -> str:
        """See `Network`."""
        return "/".join(leaf.split("/")[:-1])


def keep(activations: Activations, path: str, output: Any) -> None:
    """Keeps the first output of a layer's first call, if it is a floating array."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    if path in activations or not isinstance(first, jax.Array):
        return
    if jnp.issubdtype(first.dtype, jnp.floating):
        activations[path] = first


def flat(tree: Any) -> dict[str, Any]:
    """Returns {"/"-joined path: leaf} of a nested dict."""
    return Structure(tree).flatten(tree)
