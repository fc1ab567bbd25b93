"""Training without float32 masters: weights and moments are rounded at every update."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnn.experiment.files.trace import select
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.noise import FLOAT32
from parity.own.causes.update import judge_updates
from parity.own.optax_feed import Flat, OptaxFeed, on_moments
from parity.own.port import Port
from parity.own.replay import COMPUTE
from parity.quantities import UPDATE

TEXT = "weights are kept in {}, without float32 masters, and rounded at every update"


class RoundedFeed(OptaxFeed):
    """An optimizer whose parameters and moments stay in a 16-bit format.

    In float64 nothing is rounded: the distance of the two is then the noise unit, as
    wide as the rounding, which may fall to either side.
    """

    def __init__(self, held: np.dtype, *args: Any):
        self._held = held
        super().__init__(*args)

    def _step(self, params: Flat, grads: Flat, dtype: np.dtype) -> tuple[Any, Any]:
        updated, state = super()._step(params, grads, dtype)
        if dtype != FLOAT32:
            return updated, state
        held = {name: self._rounded(leaf) for name, leaf in updated.items()}
        return held, on_moments(state, self._rounded)

    def _rounded(self, leaf: Any) -> Any:
        return jnp.asarray(leaf).astype(self._held).astype(leaf.dtype)


def explain(
    port: Port, failed: Sequence[Measurement], threshold: float
) -> list[Explanation]:
    """Returns that there are no float32 masters, if updates pass without them."""
    precision = port.ported.meta["precision"]
    if precision == "fp32" or not _are_rounded(port):
        return []
    held = COMPUTE[precision]
    other = copy.copy(port)
    other.feed_of = functools.partial(RoundedFeed, held)
    if any(m.z > threshold for m in judge_updates(other, threshold)):
        return []
    how = "model.half() without fp32 masters"
    return [
        cause(
            ["half_precision_masters"],
            TEXT.format(held.name),
            how,
            UPDATE,
            failed,
            True,
        )
    ]


def _are_rounded(port: Port) -> bool:
    """Returns True if no update takes a weight off the grid of the 16-bit format."""
    held = COMPUTE[port.ported.meta["precision"]]
    for number in range(len(port.ported)):
        for array in select(port.ported.raw(number), "updated").values():
            if not np.array_equal(array, array.astype(held).astype(array.dtype)):
                return False
    return True
