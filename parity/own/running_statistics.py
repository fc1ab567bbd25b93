"""How much of its old value a running statistic keeps, measured on both sides.

    r' = a r + (1 - a) g b

r, r': before and after a step; b: the port's statistic of the batch; a, g: of the
recording. The port is asked twice, with r and with r + 1: the difference is its own a,
and the rest its b. g is 1, or says by which count of rows a variance is divided.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.noise import FLOAT64
from parity.own.cause import cause
from parity.own.port import Port
from parity.own.replay import PortReplay
from parity.quantities import GRADIENTS

RESIDUAL = 1e-2
"""Part of what differs that a measurement may leave; rounding leaves less."""

Samples = dict[str, np.ndarray]
"""{"before", "after": recorded; "own": the port's `after`; "kept": its a; "batch": its
b}."""
OfStep = dict[str, Mapping[str, np.ndarray]]
"""The same by leaf within."""


class Kept(NamedTuple):
    """How a leaf is averaged.

    Attributes:
      recorded: share of its old value that it keeps in the recording.
      own: that in the port.
      gain: recorded statistic of a batch over the port's.
      rows: over how many rows the port takes it.
    """

    recorded: float
    own: float
    gain: float
    rows: int

    @property
    def names(self) -> list[str]:
        """Short names of what differs."""
        named = {
            "norm_momentum": self.recorded != self.own,
            "variance_count": self.gain != 1,
        }
        return [name for name, differs in named.items() if differs]

    def sentences(self) -> Iterator[str]:
        """Yields what differs, with the figures of both sides."""
        if self.recorded != self.own:
            yield (
                f"running statistics keep {self.recorded:.4g} of their old value, "
                f"yours {self.own:.4g}"
            )
        if self.gain != 1:
            counts = (f"n - 1 = {self.rows - 1}", f"n = {self.rows}")
            theirs, mine = counts if self.gain > 1 else counts[::-1]
            yield f"variances are divided by {theirs}, yours by {mine}"


def explain(port: Port, failed: Sequence[Measurement]) -> list[Explanation]:
    """Returns what momentum and count explain of running statistics; perhaps nothing.

    Args:
      port: the port and its recording.
      failed: measurements that failed.
    """
    wrong = sorted({m.tensor for m in failed if m.quantity == "batch_stats"})
    ported = port.ported
    steps = [n for n in range(len(ported)) if not ported.raw(n)["skipped"]]
    # A statistic that starts at zero shows in its second step what it keeps. Several
    # passes of a rank in one step would average it several times.
    if len(steps) < 2 or len(ported.passes(0)) != ported.meta["world_size"]:
        return []
    samples = _samples([_of_step(port, number) for number in steps], wrong)
    found = {leaf: _measured(port, leaf, samples[leaf]) for leaf in wrong}
    known = [kept for kept in found.values() if kept]
    if not known or len(known) < len(wrong):
        return []
    texts = dict.fromkeys(said for kept in known for said in kept.sentences())
    names = dict.fromkeys(name for kept in known for name in kept.names)
    how = "MISMATCHES L1; measured from the recorded statistics"
    return [
        cause(
            list(names),
            "; ".join(texts),
            how,
            GRADIENTS,
            failed,
            explains=all(m.quantity == "batch_stats" for m in failed),
        )
    ]


def _samples(steps: Sequence[OfStep], leaves: Sequence[str]) -> dict[str, Samples]:
    """Returns the samples of all steps, flat, of each leaf."""
    return {
        leaf: {
            kind: np.concatenate([step[kind][leaf].ravel() for step in steps])
            for kind in steps[0]
        }
        for leaf in leaves
    }


def _of_step(port: Port, number: int) -> OfStep:
    step = port.ported.read(number)
    replay = PortReplay(port.ported, number, port.objective, None)
    inputs = replay.inputs(number)
    state = {n: a for n, a in inputs.compute.items() if n.startswith("state/")}
    moved = inputs._replace(
        compute=inputs.compute | {name: array + 1 for name, array in state.items()}
    )
    before = select(inputs.compute, "state")
    own, other = (
        select(replay.gradients(given, FLOAT64), "updated_batch_stats")
        for given in (inputs, moved)
    )
    # float32 holds r + 1 not quite; what it holds is what the port was given.
    gone = select(moved.compute, "state")
    kept = {n: (other[n] - own[n]) / (gone[n].astype(float) - before[n]) for n in own}
    return {
        "before": {n: before[n].astype(np.float64) for n in own},
        "after": select(step, "updated_batch_stats"),
        "own": own,
        "kept": kept,
        "batch": {n: (own[n] - kept[n] * before[n]) / (1 - kept[n]) for n in own},
    }


def _measured(port: Port, leaf: str, samples: Samples) -> Kept | None:
    """Returns how a leaf is averaged; None if not by these rules."""
    own = float(np.median(samples["kept"]))
    rows = _rows(port, leaf)
    is_variance = bool((samples["batch"] >= 0).all())
    for gain in _gains(rows) if is_variance else (1.0,):
        recorded = _share(samples, gain)
        for share in (own, recorded):
            if _leaves_nothing(samples, share, gain):
                return Kept(share, own, gain, rows)
    return None


def _gains(rows: int) -> Iterator[float]:
    yield 1.0
    if rows > 1:
        yield rows / (rows - 1)
        yield (rows - 1) / rows


def _rows(port: Port, leaf: str) -> int:
    """Returns over how many rows a layer takes its statistic; 0 if unknown."""
    shape = port.shapes(0)[0].get(port.network.module_of(leaf))
    entries = port.ported.leaves(0)[leaf].size
    return int(np.prod(shape)) // entries if shape else 0


def _share(samples: Samples, gain: float) -> float:
    """Returns a, by least squares: r' - g b = a (r - g b)."""
    batch = gain * samples["batch"]
    old, new = samples["before"] - batch, samples["after"] - batch
    size = float(old @ old)
    return float(new @ old) / size if size else 0.0


def _leaves_nothing(samples: Samples, share: float, gain: float) -> bool:
    predicted = share * samples["before"] + (1 - share) * gain * samples["batch"]
    left = np.linalg.norm(samples["after"] - predicted)
    differing = np.linalg.norm(samples["after"] - samples["own"])
    return bool(left <= RESIDUAL * differing)
