"""The forward passes of a recorded step, and loss and gradients of a port over them."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.patches import put
from parity.noise import FLOAT64, Tensors
from parity.own.foreign import in_one_line
from parity.own.networks import uses
from parity.own.networks.binding import bind
from parity.own.networks.masks import played_back
from parity.own.networks.network import NO_CHANGE, Call, Change, Network
from parity.own.networks.nudge import nudged


class Pass(NamedTuple):
    """One forward pass of one rank.

    Attributes:
      inputs: what torch's forward was given, by argument.
      targets: what the loss took besides, in order.
      masks: dropout masks, in order.
      weight: () float32, factor of its loss and gradient in the step's.
      share: what multiplies its gradient besides; 0: it is not counted.
    """

    inputs: dict[str, np.ndarray]
    targets: list[np.ndarray]
    masks: list[np.ndarray]
    weight: np.ndarray
    share: float = 1.0


def passes_of(step: Mapping[str, np.ndarray], count: int) -> list[Pass]:
    """Returns the passes of a recorded step.

    Raises:
      UserError: an input was too large to be recorded.
    """
    return [_pass(select(dict(step), f"passes/{number}")) for number in range(count)]


def _pass(recorded: Tensors) -> Pass:
    digests = select(recorded, "digests")
    if digests:
        raise UserError(
            f"cannot judge: the input {next(iter(digests))} was too large to be "
            "recorded; record again with a higher limit (own.record(..., limit=BYTES))"
        )
    return Pass(
        inputs=select(recorded, "inputs"),
        targets=_numbered(recorded, "targets"),
        masks=_numbered(recorded, "masks"),
        weight=recorded["weight"],
    )


def _numbered(recorded: Tensors, kind: str) -> list[np.ndarray]:
    found = select(recorded, kind)
    return [found[number] for number in sorted(found, key=int)]


class Objective:
    """Loss and gradients of a port, compiled once for each dtype.

    Args:
      network: the port's network.
      loss: loss(outputs, *inputs), or None where the network returns it.
      trained: leaves to differentiate by.
      change: what to compute otherwise.
      tied: leaf whose gradient is to be had by its uses, [uses.MOST, ...].

    Attributes:
      uses: number of a use of the tied leaf -> what it is, once something was computed.
    """

    def __init__(
        self,
        network: Network,
        loss: Callable | None,
        trained: Sequence[str],
        change: Change = NO_CHANGE,
        tied: str = "",
    ):
        self.uses: dict[int, str] = {}
        self._tied = tied
        self._network = network
        self._change = change
        self._loss = loss
        self._trained = list(trained)
        self._compiled: dict[tuple[bool, Any], Callable] = {}
        self._changed: dict[Change, Objective] = {}
        self._parted: dict[str, Objective] = {}

    def under(self, change: Change) -> "Objective":
        """Returns the same of a network that computes something else."""
        if change not in self._changed:
            network, loss, trained = self._network, self._loss, self._trained
            self._changed[change] = Objective(network, loss, trained, change)
        return self._changed[change]

    def by_uses(self, leaf: str) -> "Objective":
        """Returns the same, with the gradient of a leaf by its uses."""
        if leaf not in self._parted:
            network, loss, trained = self._network, self._loss, self._trained
            self._parted[leaf] = Objective(network, loss, trained, self._change, leaf)
        return self._parted[leaf]

    def __call__(
        self,
        leaves: Mapping[str, np.ndarray],
        one: Pass,
        factor: Any,
        dtype: np.dtype,
        nudge: tuple[int, np.dtype] | None = None,
    ) -> tuple[Any, Call, dict[str, Any]]:
        """Returns loss, forward pass and gradients of one pass.

        Args:
          leaves: parameters in `dtype`, running statistics.
          one: the pass.
          factor: multiplies the loss before the backward pass, in float32 or wider,
            after the pass's weight did in the loss's own dtype.
          dtype: dtype of the floating inputs.
          nudge: seed, and the dtype whose rounding moves every product.
        """
        exact = dtype == FLOAT64
        key = (exact, nudge[1] if nudge else None)
        if key not in self._compiled:
            self._compiled[key] = jax.jit(self._differentiated(*key))
        trained = {name: leaves[name] for name in self._trained}
        rest = {name: leaf for name, leaf in leaves.items() if name not in trained}
        if self._tied:
            trained[self._tied] = np.stack([trained[self._tied]] * uses.MOST)
        seed = nudge[0] if nudge else 0
        tensors = cast((one.inputs, one.targets), dtype)
        factors = one.weight, factor
        return self._compiled[key](trained, rest, *tensors, one.masks, factors, seed)

    def trace(self, leaves: Mapping[str, np.ndarray], one: Pass, dtype: np.dtype):
        """Runs a forward pass without computing anything."""
        inputs = cast(one.inputs, dtype)
        with in_one_line("model"):
            jax.eval_shape(
                lambda *given: self._forward(*given, exact=False),
                *(leaves, inputs, one.masks),
            )

    def _differentiated(self, exact: bool, nudge: np.dtype | None) -> Callable:
        def scaled(trained, rest, inputs, targets, masks, factors):
            with in_one_line("model"):
                call = self._forward({**trained, **rest}, inputs, masks, exact)
            with in_one_line("loss"):
                loss = self._loss_of(call.outputs, inputs, targets)
            return _scaled(loss, *factors), (_wide(loss), call._replace(outputs=()))

        def gradients(trained, rest, inputs, targets, masks, factors, seed):
            function = nudged(scaled, seed, nudge) if nudge else scaled
            if self._tied:
                function = uses.parted(function, self._tied, self.uses)
            differentiate = jax.value_and_grad(function, has_aux=True)
            (_, (loss, call)), grads = differentiate(
                trained, rest, inputs, targets, masks, factors
            )
            return loss, call, grads

        return gradients

    def _forward(self, leaves: Any, inputs: Any, masks: Any, exact: bool) -> Call:
        with played_back(masks), contextlib.ExitStack() as undo:
            put(undo, self._change.patches)
            return self._network(leaves, inputs, exact, self._change)

    def _loss_of(self, outputs: Any, inputs: Any, targets: Any) -> jax.Array:
        if self._loss is None:
            found = returned_loss(outputs)
        else:
            places, keywords = bind(self._loss, "loss", inputs, targets)
            found = jnp.asarray(self._loss(outputs, *places, **keywords))
        if not jnp.issubdtype(found.dtype, jnp.floating):
            raise UserError(f"loss: it is {found.dtype}, which has no gradient")
        if jnp.shape(found) != ():
            raise UserError(
                f"loss: it is {jnp.shape(found)}, not one number; take the mean as the "
                "torch program does"
            )
        return found


def _scaled(loss: jax.Array, weight: Any, factor: Any) -> jax.Array:
    """Returns what backward is called on.

    DeepSpeed divides a loss by the accumulation steps as it is, and scales it in at
    least float32: so the whole scale enters the backward pass of a 16-bit loss, and a
    scale of 2^16 overflows in float16 whatever the number of steps.
    """
    return _wide(loss * jnp.asarray(weight, loss.dtype)) * factor


def _wide(loss: jax.Array) -> jax.Array:
    return loss.astype(jnp.promote_types(loss.dtype, jnp.float32))


def returned_loss(outputs: Any) -> Any:
    """Returns the loss among a network's outputs.

    Raises:
      UserError: there is none.
    """
    if isinstance(outputs, Mapping) and "loss" in outputs:
        return outputs["loss"]
    named = getattr(outputs, "loss", None)
    first = outputs[0] if isinstance(outputs, tuple) and outputs else outputs
    for found in (named, first):
        if getattr(found, "shape", None) == ():
            return found
    raise UserError(
        "loss: the model returns none; give loss(outputs, *inputs), which computes it "
        "from the recorded inputs"
    )


def cast(tree: Any, dtype: np.dtype) -> Any:
    """Returns a tree whose floating arrays are in `dtype`, others as they are."""

    def one(array: np.ndarray) -> np.ndarray:
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        return array.astype(dtype) if floating else array

    return jax.tree.map(one, tree)
