"""Verdict on one recording: parity or divergence, and the worst of each quantity."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.judging.measure import (
    THRESHOLD,
    Measurement,
    first_failed,
    z_as_json,
)
from parity.quantities import QUANTITIES

BLUNT = 0.1
"""Relative error that every tensor of a step should show."""
PARITY = 0
DIVERGENCE = 1
COULD_NOT_JUDGE = 2
"""Exit codes of every command that judges."""


class Summary(NamedTuple):
    """One quantity over all tensors and steps.

    Attributes:
      compared: number of measurements.
      worst: measurement with the largest z.
      detectable_median: smallest relative error that would have failed, of the median
        tensor.
      detectable_worst: the same of the tensor that is measured least sharply.
    """

    compared: int
    worst: Measurement
    detectable_median: float
    detectable_worst: float

    def as_json(self) -> dict[str, Any]:
        """Returns what verdict.json holds of a quantity."""
        return {
            "compared": self.compared,
            "max_z": z_as_json(self.worst.z),
            "step": self.worst.step,
            "tensor": self.worst.tensor,
            "detectable_median": self.detectable_median,
            "detectable_worst": self.detectable_worst,
        }


class Verdict(NamedTuple):
    """What was found of one recording.

    Attributes:
      steps: number of steps that were judged.
      threshold: largest z that passes.
      max_z: largest z of all measurements.
      steps_measured_closely: steps of which something was measured again with many
        draws of noise.
      first_divergence: first measurement that failed; None at parity.
      quantities: name -> summary, of the quantities that were compared, in the order
        of a step.
      blunt: (quantity, tensor) -> smallest relative error that would have failed, of
        what passed though errors of a tenth would have too; the worst step of each.
    """

    steps: int
    threshold: float
    max_z: float
    steps_measured_closely: int
    first_divergence: Measurement | None
    quantities: dict[str, Summary]
    blunt: Mapping[tuple[str, str], float] = {}

    @property
    def is_parity(self) -> bool:
        """True if everything passed."""
        return self.first_divergence is None

    def as_json(self) -> dict[str, Any]:
        """Returns what verdict.json holds of a recording."""
        nothing = {"compared": 0}
        return {
            "verdict": "parity" if self.is_parity else "divergence",
            "max_z": z_as_json(self.max_z),
            "threshold": self.threshold,
            "steps": self.steps,
            "steps_measured_closely": self.steps_measured_closely,
            "first_divergence": place_as_json(self.first_divergence),
            "blunt": {" ".join(key).rstrip(): e for key, e in self.blunt.items()},
            "quantities": {
                name: self.quantities[name].as_json()
                if name in self.quantities
                else nothing
                for name in QUANTITIES
            },
        }


def judge_measurements(
    measurements: Sequence[Measurement],
    steps: int,
    threshold: float = THRESHOLD,
    order: Sequence[str] = (),
    must_learn: bool = True,
) -> Verdict:
    """Returns the verdict that the measurements of a recording amount to.

    Args:
      measurements: measurements of every step.
      steps: number of steps that were judged.
      threshold: largest z that passes.
      order: names of layers and gradients in the order in which a step computes them.
      must_learn: refuse a recording at parity that has learned nothing.

    Raises:
      UserError: nothing was measured, or every step was skipped and nothing learned,
        so that parity would mean nothing.
    """
    if steps < 1 or all(m.definition.is_exact for m in measurements):
        raise UserError(
            f"cannot judge: no tensor of {steps} steps was measured; record at least "
            "one, --record=full"
        )
    first = first_failed(measurements, threshold, order)
    has_learned = any(m.definition.is_learned for m in measurements)
    if must_learn and first is None and not has_learned:
        raise UserError(
            f"cannot judge: each of {steps} steps was skipped by an overflow, so "
            "nothing was learned; record more (--steps) or start from a smaller loss "
            "scale (--initial_scale_power)"
        )
    return Verdict(
        steps=steps,
        threshold=threshold,
        max_z=max(m.z for m in measurements),
        steps_measured_closely=len({m.step for m in measurements if m.closely}),
        first_divergence=first,
        quantities=_summaries(measurements),
        blunt=_blunt(measurements, threshold),
    )


def place_as_json(measurement: Measurement | None) -> dict[str, Any] | None:
    """Returns what verdict.json holds of a first divergence; None at parity."""
    if measurement is None:
        return None
    return {
        "step": measurement.step,
        "quantity": measurement.quantity,
        "tensor": measurement.tensor,
        "z": z_as_json(measurement.z),
        "gap": measurement.gap,
    }


def _blunt(
    measurements: Sequence[Measurement], threshold: float
) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for m in measurements:
        if m.z <= threshold and m.detectable > BLUNT:
            key = m.key
            found[key] = max(m.detectable, found.get(key, 0.0))
    return found


def _summaries(measurements: Sequence[Measurement]) -> dict[str, Summary]:
    by_quantity = {name: [] for name in QUANTITIES}
    for m in measurements:
        by_quantity[m.quantity].append(m)
    return {name: _summary(found) for name, found in by_quantity.items() if found}


def _summary(measurements: Sequence[Measurement]) -> Summary:
    detectable = [m.detectable for m in measurements]
    return Summary(
        compared=len(measurements),
        worst=max(measurements, key=lambda m: m.z),
        detectable_median=float(np.median(detectable)),
        detectable_worst=max(detectable),
    )
