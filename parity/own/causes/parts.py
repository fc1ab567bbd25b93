"""Which forward passes of a step its recorded gradient is made of.

A step's gradient is a sum over microbatches and ranks. Each pass was recorded, so that
least squares tell by how much each was counted; then the step is replayed that way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.noise import FLOAT64
from parity.own.passes import Pass
from parity.own.port import Port
from parity.own.recording import Ported
from parity.own.replay import PortReplay

CLOSE = 1e-2
"""Distance within which a share is the nearest whole number; 16 bits round by less."""
RESIDUAL = 5e-2
"""Part of a gradient that the shares may leave, before the step is replayed."""
MOST = 64
"""Passes of a step that are told apart."""


class Shares(NamedTuple):
    """How passes were counted.

    Attributes:
      name: short name of the pattern.
      text: it in words.
      values: share of each pass: 1 is what it should be.
    """

    name: str
    text: str
    values: tuple[float, ...]


class Counted(Ported):
    """A recording in which each pass's gradient is multiplied by its share."""

    shares: Sequence[float] = ()

    def passes(self, number: int) -> list[Pass]:
        """As in Ported."""
        passes = super().passes(number)
        return [one._replace(share=s) for one, s in zip(passes, self.shares)]


def counted(port: Port, shares: Sequence[float]) -> Counted:
    """Returns the recording of a port with its passes counted by shares."""
    found = Counted(port.trace, port.converted)
    found.shares = shares
    return found


def shares_of(port: Port, number: int) -> Shares | None:
    """Returns how the passes of a step were counted; None if that explains nothing."""
    count = len(port.ported.passes(number))
    if not 1 < count <= MOST:
        return None
    recorded = _flat(port, select(port.ported.read(number), "grads"))
    if not np.isfinite(recorded).all():
        return None
    columns = np.stack([_of_pass(port, number, place) for place in range(count)], 1)
    found, _, rank, _ = np.linalg.lstsq(columns, recorded)
    left = np.linalg.norm(columns @ found - recorded)
    if rank < count or left > RESIDUAL * np.linalg.norm(recorded):
        return None
    return _pattern(found, int(port.ported.meta["world_size"]))


def _of_pass(port: Port, number: int, place: int) -> np.ndarray:
    """Returns the port's gradient of one pass, in its share of the step's."""
    count = len(port.ported.passes(number))
    only = counted(port, [float(other == place) for other in range(count)])
    replay = PortReplay(only, number, port.objective, None)
    exact = replay.gradients(replay.inputs(number), FLOAT64)
    return _flat(port, select(exact, "grads"))


def _flat(port: Port, grads: dict[str, np.ndarray]) -> np.ndarray:
    parts = [grads[leaf].ravel() for leaf in port.ported.trained]
    return np.concatenate(parts).astype(np.float64)


def _pattern(found: np.ndarray, ranks: int) -> Shares | None:
    """Returns a name for shares; passes count microbatches, within them ranks."""
    rounded = np.round(found)
    if np.abs(found - rounded).max() > CLOSE * max(1.0, np.abs(rounded).max()):
        return None
    used = np.flatnonzero(rounded)
    # All alike is a factor on the gradient, which is told by itself.
    if not 0 < used.size < found.size or np.ptp(rounded[used]):
        return None
    factor = rounded[used[0]]
    name, text = _words(set(used.tolist()), found.size, ranks)
    if factor != 1:
        text += f", and multiplied by {factor:g}"
    return Shares(name, text, tuple(rounded.tolist()))


def _words(used: set[int], count: int, ranks: int) -> tuple[str, str]:
    parts = count // ranks
    of_part = [set(range(part * ranks, (part + 1) * ranks)) for part in range(parts)]
    of_rank = [set(range(rank, count, ranks)) for rank in range(ranks)]
    if used == of_part[-1]:
        return "last_part_only", f"only the last of {parts} microbatches was counted"
    if used == of_part[0]:
        return "first_part_only", f"only the first of {parts} microbatches was counted"
    whole = [part for part, places in enumerate(of_part) if places & used]
    if used == set().union(*(of_part[part] for part in whole)):
        lost = [str(part + 1) for part in range(parts) if part not in whole]
        text = f"of {parts} microbatches numbers {', '.join(lost)} were not counted"
        return "parts_left_out", text
    kept = [rank for rank, places in enumerate(of_rank) if places & used]
    if used == set().union(*(of_rank[rank] for rank in kept)):
        lost = [str(rank) for rank in range(ranks) if rank not in kept]
        return "ranks_left_out", f"rank {', '.join(lost)} was not counted"
    lost = [str(place) for place in range(count) if place not in used]
    return "passes_left_out", f"forward passes {', '.join(lost)} were not counted"
