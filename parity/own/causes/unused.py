"""What a program does with parameters that no pass of a step has used.

A port has a gradient of zero for them. ZeRO stages 1 and 2 have, too; stage 3 takes the
gradient of the step before once more; torch's own optimizers leave them alone.
"""

import copy
from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.judging.cause import cause, joined, leaf_of
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.noise import Tensors
from parity.own.causes import optimizer
from parity.own.causes.update import judge_updates
from parity.own.port import Port
from parity.own.recording import Ported
from parity.quantities import UPDATE

STALE = (
    "where no pass of a step used a parameter, ZeRO stage 3 updates it by the gradient "
    "of the step before"
)
LEFT = (
    "where no pass of a step used a parameter, torch leaves it and its moments as they "
    "are; optax moves it by momentum and decay"
)


class StaleUnused(Ported):
    """A recording in which a gradient stays until the next one comes."""

    def gradients(self, number: int) -> Tensors:
        """Returns {leaf: gradient}, that of an earlier step for unused ones."""
        found = super().gradients(number)
        for leaf in self.unused(number):
            last = self.source(leaf, number)
            if last != number:
                found[leaf] = super().gradients(last)[leaf]
        return found

    def source(self, leaf: str, number: int) -> int:
        """As in Ported."""
        earlier = range(number + 1)[::-1]
        return next((n for n in earlier if self._has(leaf, n)), number)

    def _has(self, leaf: str, number: int) -> bool:
        return leaf not in self.unused(number) and not self.raw(number)["skipped"]


def explain(
    port: Port, failed: Sequence[Measurement], threshold: float
) -> list[Explanation]:
    """Returns what unused parameters explain of updates that failed; perhaps nothing.

    Args:
      port: the port and its recording.
      failed: measurements that failed.
      threshold: largest z that passes.
    """
    steps = range(len(port.ported))
    unused = {leaf for number in steps for leaf in port.ported.unused(number)}
    updates = [m for m in failed if m.definition.part == UPDATE]
    if not unused:
        return []
    tensors = ", ".join(sorted(unused))
    if port.ported.meta.get("zero_stage") == 3:
        found = _of_stale(port, updates, threshold, f"{STALE} ({tensors})")
        if found:
            return [found]
    if _are_left(port, unused) and {leaf_of(m) for m in updates} <= unused:
        how = "torch.optim, which skips parameters without a gradient"
        text = f"{LEFT} ({tensors})"
        return [cause(["unused_left_alone"], text, how, UPDATE, updates, True)]
    return []


def _of_stale(
    port: Port, updates: Sequence[Measurement], threshold: float, text: str
) -> Explanation | None:
    """Returns what gradients that stay explain, alone or with another optimizer."""
    stale = copy.copy(port)
    stale.ported = StaleUnused(port.trace, port.converted)
    again = judge_updates(stale, threshold)
    left = [m for m in again if m.z > threshold]
    names, how = ["unused_gradient_stale"], "MISMATCHES D21"
    found = cause(names, text, how, UPDATE, updates, explains=True)
    if not left:
        return found
    # What the optimizer did is seen once it is known what it was given.
    others = optimizer.explain(stale, left)
    is_whole = bool(others) and all(other.explains for other in others)
    return joined([found, *others], True) if is_whole else None


def _are_left(port: Port, unused: set[str]) -> bool:
    """Returns True if no unused parameter moves in a step that did not use it."""
    for number in range(len(port.ported)):
        step = port.ported.read(number)
        before, after = select(step, "params"), select(step, "updated")
        for leaf in unused & set(port.ported.unused(number)):
            if not np.array_equal(before[leaf], after[leaf]):
                return False
    return True
