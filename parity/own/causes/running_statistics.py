"""How much of its old value a running statistic keeps, measured on both sides.

    r' = a r + (1 - a) g b

r, r': before and after a pass; b: the port's statistic of the batch; a, g: of the
recording. The port is asked twice, with r and with r + 1: the difference is its own a,
and the rest its b. g is 1, or says by which count of rows a variance is divided. Of a
step of several passes, the first r and the last r' are recorded.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize

from jaxnn.experiment.files.trace import select
from parity.inputs import Inputs
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.noise import FLOAT64, Tensors
from parity.own.port import Port
from parity.own.replay import PortReplay
from parity.quantities import GRADIENTS

RESIDUAL = 1e-2
"""Part of what differs that a measurement may leave; rounding leaves less."""

Samples = dict[str, np.ndarray]
"""{"before", "after": recorded; "own": the port's `after`; "kept": its a; "batch": its
b, [passes, ...]}."""
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
    steps = port.ported.learned
    # A statistic that starts at zero shows in its second step what it keeps.
    if len(steps) < 2:
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
            kind: np.concatenate([step[kind][leaf] for step in steps], axis=-1)
            for kind in steps[0]
        }
        for leaf in leaves
    }


def _of_step(port: Port, number: int) -> OfStep:
    step = port.ported.read(number)
    replay = PortReplay(port.ported, number, port.objective, None)
    inputs = replay.inputs(number)
    ranks = port.ported.meta["world_size"]
    # Ranks have their own statistics; rank 0's were recorded.
    alone = [replay.of_pass(place) for place in range(0, replay.count, ranks)]
    of_passes = [_of_pass(one, one.inputs(number)) for one in alone]
    own = _statistics(replay, inputs)
    state = select(inputs.compute, "state")
    return {
        "before": {n: state[n].astype(np.float64).ravel() for n in own},
        "after": {n: _flat(step, n) for n in own},
        "own": {n: array.ravel() for n, array in own.items()},
        "kept": {n: of_passes[0][n][0] for n in own},
        "batch": {n: np.stack([found[n][1] for found in of_passes]) for n in own},
    }


def _of_pass(
    replay: PortReplay, inputs: Inputs
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns {leaf: what the port keeps, and its statistic of the batch}."""
    state = {n: a for n, a in inputs.compute.items() if n.startswith("state/")}
    moved = inputs._replace(
        compute=inputs.compute | {name: array + 1 for name, array in state.items()}
    )
    own, other = (_statistics(replay, given) for given in (inputs, moved))
    # float32 holds r + 1 not quite; what it holds is what the port was given.
    before, gone = (select(given.compute, "state") for given in (inputs, moved))
    found = {}
    for name, array in own.items():
        old = before[name].astype(np.float64)
        kept = (other[name] - array) / (gone[name] - old)
        found[name] = kept.ravel(), ((array - kept * old) / (1 - kept)).ravel()
    return found


def _statistics(replay: PortReplay, inputs: Inputs) -> dict[str, np.ndarray]:
    return select(replay.gradients(inputs, FLOAT64), "updated_batch_stats")


def _flat(step: Tensors, leaf: str) -> np.ndarray:
    return step[f"updated_batch_stats/{leaf}"].astype(np.float64).ravel()


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
    """Returns the a that leaves least."""
    found = optimize.minimize_scalar(
        lambda share: _left(samples, share, gain),
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.x)


def _left(samples: Samples, share: float, gain: float) -> float:
    predicted = samples["before"]
    for batch in samples["batch"]:
        predicted = share * predicted + (1 - share) * gain * batch
    return float(np.linalg.norm(samples["after"] - predicted))


def _leaves_nothing(samples: Samples, share: float, gain: float) -> bool:
    differing = np.linalg.norm(samples["after"] - samples["own"])
    return bool(_left(samples, share, gain) <= RESIDUAL * differing)
