"""Anybody's optax optimizer, fed with recorded gradients from the first step on.

No state is put into it: what it holds before a step is what the recorded gradients of
the steps before have made of it, in float32 and once more in float64.
"""

import copy
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnn.experiment.errors import UserError
from parity.noise import FLOAT32, FLOAT64
from parity.own.foreign import in_one_line
from parity.own.tree import Structure

FIELDS = {
    "mu": "first",
    "trace": "first",
    "nu": "second",
    "sum_of_squares": "second",
}
"""Field of an optax state -> the moment of the trace that it is."""
FORMATS = (FLOAT32, FLOAT64)

Flat = Mapping[str, np.ndarray]


class OptaxFeed:
    """An optimizer and its state, once for each format.

    Args:
      optimizer: any optax transformation.
      structure: structure of the tree that the optimizer is given.
      leaves: parameters before the first step, float32; others are not looked at.

    Raises:
      UserError: it is no optax transformation.
    """

    def __init__(self, optimizer: Any, structure: Structure, leaves: Flat):
        if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
            raise UserError(
                f"optimizer: a {type(optimizer).__name__} has no init and update; give "
                "an optax transformation, optax.adamw(1e-3)"
            )
        self._optimizer = optimizer
        self._structure = structure
        self._compiled = _compiled(optimizer)
        self._states = {}
        for dtype in FORMATS:
            with jax.enable_x64(dtype == FLOAT64):
                tree = structure.unflatten(_cast(leaves, dtype))
                with in_one_line("optimizer"):
                    self._states[dtype] = self._in(dtype, optimizer.init(tree))

    def update(self, params: Flat, grads: Flat, dtype: np.dtype) -> dict[str, Any]:
        """Returns {"updated/LEAF", "updated_moments/KIND/LEAF"} of one step, float64.

        The state stays as it is.
        """
        updated, state = self._step(params, grads, dtype)
        named = {f"updated/{name}": leaf for name, leaf in updated.items()}
        for kind, leaves in self._moments(state).items():
            named |= {f"updated_moments/{kind}/{n}": leaf for n, leaf in leaves.items()}
        return {name: np.asarray(leaf, np.float64) for name, leaf in named.items()}

    def advance(self, params: Flat, grads: Flat) -> None:
        """Moves the state past a step that was not skipped."""
        for dtype in FORMATS:
            _, self._states[dtype] = self._step(params, grads, dtype)

    def without_moments(self) -> "OptaxFeed":
        """Returns the same, as it is with moments of zero."""
        found = copy.copy(self)
        found._states = {}
        for dtype, state in self._states.items():
            with jax.enable_x64(dtype == FLOAT64):
                found._states[dtype] = on_moments(state, jnp.zeros_like)
        return found

    def _step(self, params: Flat, grads: Flat, dtype: np.dtype) -> tuple[Any, Any]:
        with jax.enable_x64(dtype == FLOAT64):
            updated, state = self._compiled(
                self._structure.unflatten(_cast(params, dtype)),
                self._structure.unflatten(_cast(grads, dtype)),
                self._states[dtype],
            )
            return self._structure.flatten(updated), self._in(dtype, state)

    def _moments(self, state: Any) -> dict[str, dict[str, Any]]:
        """Returns {kind: {leaf: moment}}; a masked part of an optimizer holds some."""
        found: dict[str, dict[str, Any]] = {}
        for field, tree in _fields(state):
            if jax.tree_util.tree_leaves(tree):
                held = found.setdefault(FIELDS[field], {})
                held |= Structure(tree, self._structure.prefix).flatten(tree)
        return found

    @staticmethod
    def _in(dtype: np.dtype, state: Any) -> Any:
        """Returns a state whose floats are in a format; its own may be float32."""

        def one(leaf: Any) -> Any:
            array = jnp.asarray(leaf)
            floating = jnp.issubdtype(array.dtype, jnp.floating)
            return array.astype(dtype) if floating else array

        return jax.tree.map(one, state)


def _compiled(optimizer: Any) -> Callable[..., Any]:
    """Returns the step of an optimizer, compiled once however often it is fed anew."""
    return _once(optimizer) if isinstance(optimizer, Hashable) else _step_of(optimizer)


def _step_of(optimizer: Any) -> Callable[..., Any]:
    @jax.jit
    def step(params: Any, grads: Any, state: Any) -> tuple[Any, Any]:
        with in_one_line("optimizer"):
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

    return step


_once = functools.lru_cache(maxsize=4)(_step_of)


def _fields(state: Any) -> Iterator[tuple[str, Any]]:
    """Yields the moments in a state, a nest of tuples and of named tuples."""
    if isinstance(state, tuple):
        names = getattr(state, "_fields", range(len(state)))
        for name, value in zip(names, state):
            if name in FIELDS:
                yield name, value
            else:
                yield from _fields(value)
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _fields(value)


def on_moments(state: Any, change: Callable[[Any], Any]) -> Any:
    """Returns an optimizer's state with changed moments."""

    def one(path: Any, leaf: Any) -> Any:
        held = any(getattr(key, "name", None) in FIELDS for key in path)
        return change(leaf) if held else leaf

    return jax.tree_util.tree_map_with_path(one, state)


def _cast(leaves: Flat, dtype: np.dtype) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf, dtype) for name, leaf in leaves.items()}
