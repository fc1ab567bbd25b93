"""What changed training state between two steps: a reload, a clip, a new optimizer.

A step begins where the one before has ended. Where it does not, both states were
recorded, so that what was done to them can be told to the bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.measured.difference import listed
from parity.noise import Tensors
from parity.own.equalities import CARRIED
from parity.own.recording import Ported
from parity.quantities import RULES

SOURCES = {
    "moments_reset": "an optimizer that is built again at an epoch or a restore",
    "weights_reloaded": "a restore or an init that runs again",
    "weights_clipped": "a loop that clips weights",
    "changed_between_steps": "read at the end of a step and at the start of the next",
}
"""Name of a change -> what it comes from."""
FEWEST = 3
"""Entries that must lie on a bound before it is called one."""


class Moved(NamedTuple):
    """A tensor that a step does not begin with as the one before has left it.

    Attributes:
      name: in the trace, with its kind.
      left: after the step before.
      now: before this one.
    """

    name: str
    left: np.ndarray
    now: np.ndarray


def explain(ported: Ported, failed: Sequence[Measurement]) -> list[Explanation]:
    """Returns what was done to the state between steps, in one explanation.

    Args:
      ported: the recording.
      failed: tensors before a step that are not those after the one before.
    """
    names, sentences = [], []
    for number in sorted({m.step for m in failed}):
        of_step = [m.tensor for m in failed if m.step == number]
        for (name, text), tensors in _told(ported, number, of_step).items():
            names.append(name)
            where = f"between steps {number - 1} and {number}"
            sentences.append(f"{where} {listed(tensors)} {text}")
    if not names:
        return []
    names = list(dict.fromkeys(names))
    how = "; ".join(SOURCES[name] for name in names)
    return [cause(names, "; ".join(sentences), how, RULES, failed, True)]


def _told(
    ported: Ported, number: int, tensors: Sequence[str]
) -> Mapping[tuple[str, str], list[str]]:
    """Returns {(name, what was done): tensors} of one step."""
    step, previous = ported.raw(number), ported.raw(number - 1)
    moved = [Moved(t, _left(previous, t), step[t]) for t in tensors]
    params = [one for one in moved if one.name.startswith("params/")]
    bounds = _clipped(params)
    returned = _returned(ported, number, moved)
    told: dict[tuple[str, str], list[str]] = {}
    for one in moved:
        done = "changed_between_steps", "changed"
        if one.name.startswith("moments/") and not one.now.any():
            done = "moments_reset", "became zero"
        elif one.name in returned:
            began = f"went back to what began step {returned[one.name]}"
            done = "weights_reloaded", began
        elif bounds and one.name.startswith("params/"):
            done = "weights_clipped", bounds
        told.setdefault(done, []).append(one.name.removeprefix("params/"))
    return told


def _left(previous: Tensors, tensor: str) -> np.ndarray:
    """Returns what a step has left of a tensor."""
    kind, _, name = tensor.partition("/")
    return previous[f"{CARRIED[kind]}/{name}"]


def _returned(ported: Ported, number: int, moved: Sequence[Moved]) -> dict[str, int]:
    """Returns {tensor: the latest earlier step that began with its values}."""
    found: dict[str, int] = {}
    # A step is read once for all tensors: it may be large.
    for earlier in range(number)[::-1]:
        step = ported.raw(earlier)
        for one in moved:
            held = step.get(one.name)
            if held is not None and np.array_equal(held, one.now):
                found.setdefault(one.name, earlier)
    return found


def _clipped(params: Sequence[Moved]) -> str:
    """Returns how all of these were clipped at the same bounds; "" if they were not."""
    entries = list(_changed_entries(params))
    if len(entries) < FEWEST:
        return ""
    raised = {now for left, now in entries if now > left}
    lowered = {now for left, now in entries if now < left}
    if len(raised) > 1 or len(lowered) > 1:
        return ""
    low, high = min(raised, default=-np.inf), max(lowered, default=np.inf)
    if all(np.array_equal(np.clip(p.left, low, high), p.now) for p in params):
        return f"had their entries clipped to between {low:.4g} and {high:.4g}"
    return ""


def _changed_entries(params: Sequence[Moved]) -> Iterator[tuple[float, float]]:
    for one in params:
        moved = one.left != one.now
        yield from zip(one.left[moved].tolist(), one.now[moved].tolist())
