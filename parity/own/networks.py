"""Anybody's JAX network behind one call: flax.linen, flax.nnx, or a plain function.

Each computes in the dtype of the parameters that it is given. A layer that was built
with a dtype of its own would round where the float64 reference must not, so there that
dtype is lifted.
"""

import contextlib
from collections.abc import Callable, Mapping
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
KEY_NAMES = ("params", "dropout")
"""Streams of random keys that flax modules ask for."""


class Call(NamedTuple):
    """What one forward pass gave.

    Attributes:
      outputs: what the network returned.
      activations: {path of a module: its first output}, in the order they end.
      state: {leaf: new value} of what the pass changed: running statistics.
    """

    outputs: Any
    activations: dict[str, jax.Array]
    state: dict[str, jax.Array]


class Network(Protocol):
    """A network whose parameters are given with each call."""

    def __call__(self, leaves: Leaves, inputs: Mapping[str, Any], exact: bool) -> Call:
        """Runs one forward pass in training mode.

        Args:
          leaves: parameters and running statistics.
          inputs: recorded inputs by name.
          exact: lift the dtypes that layers were built with.
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
      UserError: it is none of the three, or lacks a leaf of the tree.
    """
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

    def __call__(self, leaves: Leaves, inputs: Mapping[str, Any], exact: bool) -> Call:
        """See `Network`."""
        tree = self._structure.unflatten(leaves)
        variables = {"params": tree} if self._is_bare else tree
        places, keywords = bind(type(self._module).__call__, "model", inputs)
        activations: dict[str, jax.Array] = {}
        with nn.intercept_methods(_noting(activations, exact)):
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

    def module_of(self, leaf: str) -> str:
        """See `Network`."""
        path = leaf.split("/")[:-1]
        return "/".join(path if self._is_bare else path[1:])


def _noting(activations: dict[str, jax.Array], exact: bool) -> Callable:
    """Returns an interceptor that notes the outputs of linen modules."""

    def note(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        with _lifted(layer) if exact else contextlib.nullcontext():
            output = call(*args, **kwargs)
        path = "/".join(layer.path)
        if path and context.method_name == "__call__":
            keep(activations, path, output)
        return output

    return note


@contextlib.contextmanager
def _lifted(layer: Any):
    """Lets a bound layer compute in the dtype of what it is given."""
    held = getattr(layer, "dtype", None)
    if held is None:
        yield
        return
    # linen modules are frozen dataclasses; this one is bound to a single call.
    object.__setattr__(layer, "dtype", None)
    try:
        yield
    finally:
        object.__setattr__(layer, "dtype", held)


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

    def __call__(self, leaves: Leaves, inputs: Mapping[str, Any], exact: bool) -> Call:
        """See `Network`."""
        state = self._state | {
            self._paths[name]: self._state[self._paths[name]].replace(leaf)
            for name, leaf in leaves.items()
        }
        module = nnx.merge(self._graph, nnx.from_flat_state(list(state.items())))
        module.train()
        layers = {id(layer): path for path, layer in nnx.iter_modules(module)}
        if exact:
            _lift(module)

        places, keywords = bind(self._kind.__call__, "model", inputs)
        activations: dict[str, jax.Array] = {}
        with _watched_classes(module, layers, activations):
            outputs = module(*places, **keywords)
        after = dict(nnx.to_flat_state(nnx.state(module, nnx.BatchStat)))
        changed = {"/".join(map(str, path)): v[...] for path, v in after.items()}
        return Call(outputs, activations, changed)

    def module_of(self, leaf: str) -> str:
        """See `Network`."""
        return "/".join(leaf.split("/")[:-1])


def _lift(module: nnx.Module) -> None:
    """Lets the layers of a merged copy compute in the dtype of what they are given."""
    layer: Any
    for _, layer in nnx.iter_modules(module):
        if getattr(layer, "dtype", None) is not None:
            layer.dtype = None


@contextlib.contextmanager
def _watched_classes(
    module: nnx.Module,
    layers: Mapping[int, tuple[Any, ...]],
    activations: dict[str, jax.Array],
):
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

    def __call__(self, leaves: Leaves, inputs: Mapping[str, Any], exact: bool) -> Call:
        """See `Network`."""
        places, keywords = bind(self._apply, "model", inputs)
        tree = self._structure.unflatten(leaves)
        # By place after the parameters, whatever their names.
        return Call(self._apply(tree, *places, **keywords), {}, {})

    def module_of(self, leaf: str) -> str:
        """See `Network`."""
        return "/".join(leaf.split("/")[:-1])


def keep(activations: dict[str, jax.Array], path: str, output: Any) -> None:
    """Keeps the first output of a layer's first call, if it is a floating array."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    if path in activations or not isinstance(first, jax.Array):
        return
    if jnp.issubdtype(first.dtype, jnp.floating):
        activations[path] = first


def flat(tree: Any) -> dict[str, Any]:
    """Returns {"/"-joined path: leaf} of a nested dict."""
    return Structure(tree).flatten(tree)
