"""Verdict on where one run ends, measured against JAX runs that start one ulp apart.

    z = ||end - mean|| / max(push * spread, ||mean - float64 run||, rounding)

The mean and spread are those of the JAX runs; see `parity.free.spread`. An end within 8
units is the same computation. Where the JAX runs themselves end much further apart than
rounding moves anything, the path is chaotic and the verdict says so: it is then only as
sharp as these runs are close to each other.
"""

from typing import Any, NamedTuple

import numpy as np

from parity.free.end import RunEnd
from parity.free.spread import RUNS, Spread, deviation
from parity.judging.measure import THRESHOLD, UNEQUAL, z_as_json
from parity.noise import norm

SAME = "same computation"
CHAOTIC = "same computation, chaotic path"
DIVERGENCE = "divergence"

CHAOS = 8.0
"""A path is chaotic if the runs' spread is more than this many times their rounding."""


class EndComparison(NamedTuple):
    """One entry of an outcome compared with the JAX runs; distances are norms.

    Attributes:
      z: distance over unit; UNEQUAL if it is not finite.
      distance: distance from the mean of the JAX runs.
      spread: standard deviation of the JAX runs.
      from_float64: distance of their mean from the run in float64.
      rounding: change that rounding makes without being amplified by training.
      push: factor of the spread.
      unit: largest of push * spread, from_float64 and rounding.
      as_far: number of JAX runs that are as far from the mean of the others.
      size: norm of the mean.
      detectable: smallest relative error that would have failed; absolute if size is 0.
    """

    z: float
    distance: float
    spread: float
    from_float64: float
    rounding: float
    push: float
    unit: float
    as_far: int
    size: float
    detectable: float

    def as_json(self) -> dict[str, Any]:
        """Returns what verdict.json holds of an entry."""
        distances = {"z": z_as_json(self.z), "distance": z_as_json(self.distance)}
        return self._asdict() | distances


class EndVerdict(NamedTuple):
    """Verdict on one run.

    Attributes:
      verdict: SAME, CHAOTIC or DIVERGENCE.
      max_z: largest z.
      worst: name of the entry that has it.
      threshold: largest z that passes.
      runs: number of JAX runs.
      grown: spread of all parameters over their rounding.
      detectable: smallest relative error of all parameters that would have failed.
      quantities: comparison of each entry of the outcome.
    """

    verdict: str
    max_z: float
    worst: str
    threshold: float
    runs: int
    grown: float
    detectable: float
    quantities: dict[str, EndComparison]

    def as_json(self) -> dict[str, Any]:
        """Returns what verdict.json holds of a run."""
        quantities = {name: row.as_json() for name, row in self.quantities.items()}
        return self._asdict() | {
            "max_z": z_as_json(self.max_z),
            "grown": z_as_json(self.grown),
            "detectable": z_as_json(self.detectable),
            "quantities": quantities,
        }


def judge(end: RunEnd, spread: Spread, threshold: float = THRESHOLD) -> EndVerdict:
    """Returns the verdict on one run.

    Args:
      end: outcome of the run.
      spread: where the JAX runs end.
      threshold: largest z that passes.
    """
    quantities = {
        name: compare(
            end.get(name),
            runs,
            spread.exact.get(name),
            spread.rounding[name],
            spread.push[name],
            threshold,
        )
        for name, runs in spread.ends.items()
    }
    worst = max(quantities, key=lambda name: quantities[name].z)
    max_z = quantities[worst].z

    # All parameters together, as one vector: the norm of the tensors' norms.
    params = [row for name, row in quantities.items() if name.startswith("params/")]
    apart, rounding, unit, size = (
        norm(np.array([getattr(row, kind) for row in params]))
        for kind in ("spread", "rounding", "unit", "size")
    )
    grown = _ratio(apart, rounding)
    return EndVerdict(
        verdict=_verdict(max_z, grown, threshold),
        max_z=max_z,
        worst=worst,
        threshold=threshold,
        runs=RUNS,
        grown=grown,
        detectable=threshold * _ratio(unit, size),
        quantities=quantities,
    )


def _verdict(max_z: float, grown: float, threshold: float) -> str:
    if max_z > threshold:
        return DIVERGENCE
    return CHAOTIC if grown > CHAOS else SAME


def compare(
    value: np.ndarray | None,
    runs: np.ndarray,
    exact: np.ndarray | None,
    rounding: float,
    push: float,
    threshold: float,
) -> EndComparison:
    """Compares one entry of an outcome with the JAX runs.

    Args:
      value: entry of the run, or None if it lacks the entry.
      runs: [runs, ...] entries of the JAX runs.
      exact: entry of the run in float64, or None if it lacks the entry.
      rounding: norm of the change that rounding makes.
      push: factor of the spread.
      threshold: largest z that passes.
    """
    mean = runs.mean(axis=0)
    # A missing entry, or one of another shape, is infinitely far: nan becomes UNEQUAL.
    distance = np.nan
    if value is not None and value.shape == mean.shape:
        distance = norm(value - mean)

    spread = deviation(runs)
    size = norm(mean)
    from_float64 = norm(mean - exact) if exact is not None else 0.0
    unit = max(push * spread, from_float64, rounding)

    # The mean of the other runs does not contain the run itself, which makes its
    # distance larger by n / (n - 1).
    count = len(runs)
    others = [norm(run - mean) * count / (count - 1) for run in runs]
    return EndComparison(
        z=_ratio(distance, unit),
        distance=distance if np.isfinite(distance) else UNEQUAL,
        spread=spread,
        from_float64=from_float64,
        rounding=rounding,
        push=push,
        unit=unit,
        as_far=sum(other >= distance for other in others),
        size=size,
        detectable=threshold * unit / (size or 1.0),
    )


def _ratio(distance: float, unit: float) -> float:
    """Returns distance / unit, or UNEQUAL if that is not finite."""
    # 0 / 0 is a passed equality: entries such as the number of steps have unit 0.
    if distance == 0:
        return 0.0
    if unit > 0 and np.isfinite(distance / unit):
        return float(distance / unit)
    return UNEQUAL
