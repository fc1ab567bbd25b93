"""A tied leaf whose recorded gradient comes by some of its uses alone."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.noise import FLOAT64, norm
from parity.own.networks.uses import WORDS
from parity.own.port import Port
from parity.own.replay import PortReplay
from parity.quantities import GRADIENTS

RESIDUAL = 1e-2
"""Part of what is missing that a sum of uses may leave; rounding leaves less."""


def explain(port: Port, failed: Sequence[Measurement]) -> list[Explanation]:
    """Returns which use of a tied leaf explains all steps; perhaps nothing.

    Args:
      port: the port and its recording.
      failed: measurements of gradients that failed.
    """
    leaves = {m.tensor for m in failed}
    if {m.quantity for m in failed} != {"grads"} or len(leaves) != 1:
        return []
    (leaf,) = leaves
    texts = {_lost(port, m.step, leaf) for m in failed}
    if len(texts) != 1 or None in texts:
        return []
    how = "measured from the recorded gradients"
    text = str(*texts)
    return [cause(["lost_gradient_path"], text, how, GRADIENTS, failed, True)]


def _lost(port: Port, number: int, leaf: str) -> str | None:
    """Returns what a leaf's gradient lacks; None if that is no set of uses."""
    recorded = port.ported.read(number)[f"grads/{leaf}"]
    objective = port.objective.by_uses(leaf)
    replay = PortReplay(port.ported, number, objective, None)
    parts = replay.gradients(replay.inputs(number), FLOAT64)[f"grads/{leaf}"]
    alive = [use for use in objective.uses if parts[use].any()]
    found = list(_kept(recorded, parts, alive))
    if len(found) != 1:
        return None
    lost = [use for use in alive if use not in found[0]]
    words = [WORDS.get(objective.uses[use], objective.uses[use]) for use in lost]
    return (
        f"the recorded gradient of {leaf} lacks what comes by its "
        f"{' and '.join(words)}; yours comes by {len(alive)} uses"
    )


def _kept(
    recorded: np.ndarray, parts: np.ndarray, alive: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Yields the sets of uses, not all of them, whose gradients are the recorded."""
    missing = norm(recorded - parts.sum(0))
    for count in range(1, len(alive)):
        for kept in itertools.combinations(alive, count):
            if norm(recorded - parts[list(kept)].sum(0)) <= RESIDUAL * missing:
                yield kept
