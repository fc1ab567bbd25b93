"""A port and its optimizer laid beside a checkpoint: what goes where, either way."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxnn.experiment.errors import UserError
from parity.own.foreign import in_one_line
from parity.own_checkpoint import layout, optax_state
from parity.own_checkpoint.layout import Layout
from parity.own_checkpoint.optax_state import Found, Slot
from parity.own_checkpoint.torch_half import Held

SCALED = "square_avg"
"""What RMSprop keeps, whose momentum optax may hold multiplied by the rate."""


class Plan(NamedTuple):
    """What goes where.

    Attributes:
      layout: which leaf is which tensor.
      leaves: leaf -> the checkpoint's values, float32.
      state: state of the port's optimizer before training; () if there is none.
      found: what its arrays are.
    """

    layout: Layout
    leaves: dict[str, np.ndarray]
    state: Any
    found: Found

    @property
    def slots(self) -> dict[str, Slot]:
        """Path of an array in the state -> what it is."""
        return self.found.slots

    def path(self, leaf: str) -> str:
        """Returns where a leaf stands in the tree of files."""
        return leaf if self.has_own_params else f"{layout.FLAX_PARAMS}/{leaf}"

    @property
    def has_own_params(self) -> bool:
        """True for flax's variables, which have a "params" of their own."""
        prefix = f"{layout.FLAX_PARAMS}/"
        return any(name.startswith(prefix) for name in self.layout.structure.names)


def make(port: Mapping[str, Any], held: Held, console: Console) -> Plan:
    """Returns the plan.

    Args:
      port: what the port's file defines.
      held: what the checkpoint holds.
      console: what is proposed is printed to it.

    Raises:
      UserError: the port does not fit the checkpoint.
    """
    laid = layout.lay(port, held, console)
    step = layout.ordered(held)
    sources = {name.partition("/")[2]: array for name, array in step.items()}
    leaves = layout.moved(
        laid.weights, {name: sources[name] for name in laid.weights.sources}
    )
    optimizer = port["optimizer"]
    if optimizer is None:
        return Plan(laid, leaves, (), Found({}, []))
    state = _start(optimizer, laid, leaves)
    keys = list(held.about["keys"])
    if SCALED in keys and _holds_rate(optimizer, laid, leaves, state):
        keys.remove("momentum_buffer")
    return Plan(laid, leaves, state, _find(state, laid, leaves, keys))


def _start(optimizer: Any, laid: Layout, leaves: Mapping[str, np.ndarray]) -> Any:
    """Returns the state before training, of NumPy arrays."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise UserError(
            f"optimizer: a {type(optimizer).__name__} has no init and update; give an "
            "optax transformation, optax.adamw(1e-3)"
        )
    with in_one_line("optimizer"):
        return jax.tree.map(_array, optimizer.init(_tree(laid, leaves)))


def _array(leaf: Any) -> np.ndarray:
    # A random key is no number until it is asked for its words.
    is_key = jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _tree(laid: Layout, leaves: Mapping[str, np.ndarray]) -> Any:
    held = {name: jnp.asarray(leaves[name]) for name in laid.optimized.names}
    return laid.optimized.unflatten(held)


def _find(
    state: Any, laid: Layout, leaves: Mapping[str, np.ndarray], keys: list[str]
) -> Found:
    shapes = {name: leaves[name].shape for name in laid.optimized.names}
    return optax_state.find(state, laid.optimized, shapes, keys)


def _holds_rate(
    optimizer: Any, laid: Layout, leaves: Mapping[str, np.ndarray], state: Any
) -> bool:
    """Whether momentum is of updates that were multiplied by minus the rate.

    optax.rmsprop does so, a chain of one's own may not: after one positive gradient the
    momentum's sign tells.
    """
    slots = _find(state, laid, leaves, ["momentum_buffer"]).slots
    params = _tree(laid, leaves)
    with in_one_line("optimizer"):
        ones = jax.tree.map(jnp.ones_like, params)
        _, after = optimizer.update(ones, optimizer.init(params), params)
    arrays = optax_state.named(after)
    return any(
        bool((np.asarray(arrays[path]) < 0).any())
        for path, slot in slots.items()
        if slot.kind == "moment"
    )
