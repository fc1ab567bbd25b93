"""Measurements of one recorded step -> z scores -> verdict and first divergence. NumPy only.

    z = ||replayed - recorded|| / max(noise unit, one ulp of the storage format, in norm)

A step passes at z <= 8. What must be equal to the bit and is not counts as `BROKEN`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.noise import norm, ulp

THRESHOLD = 8.0
BROKEN = 1e308
"""The z of a broken equality, and of a comparison with a value that is not finite."""

EXACT = ("params", "batch", "optimizer_step", "learning_rate", "loss_scale", "skipped", "unchanged")
PHASES = ("params", "batch", "optimizer_step", "learning_rate", "loss_scale", "loss", "batch_stats", "grads", "skipped",
          "moments", "updated", "unchanged")
"""Quantities in the order in which a step makes them."""


class Measurement(NamedTuple):
    """One tensor of one step.

    Attributes:
      step: counted from 0.
      quantity: one of PHASES.
      tensor: canonical name; empty for a scalar.
      z: distance in noise units.
      detectable: the smallest relative error that would have been caught; 0 for an equality.
      closely: whether it failed with few draws of noise and was measured again with many.
    """

    step: int
    quantity: str
    tensor: str
    z: float
    detectable: float
    closely: bool = False


def measure(step: int, quantity: str, tensor: str, recorded: np.ndarray, replayed: np.ndarray, unit: float,
            storage: np.dtype, scale: float = 1.0, threshold: float = THRESHOLD,
            closely: bool = False) -> Measurement:
    """Compares one tensor in noise units.

    Args:
      step, quantity, tensor: where it stands.
      recorded: as the stack wrote it.
      replayed: as JAX computes it from the recorded inputs, float64.
      unit: its noise unit.
      storage: the format it was stored in before unscaling.
      scale: what it was multiplied by in that format.
      threshold: largest z that passes.
      closely: for the record.
    """
    floor = norm(ulp(np.asarray(recorded, np.float64) * scale, storage) / scale)
    unit, size = max(unit, floor), norm(recorded)
    z = norm(np.asarray(recorded, np.float64) - replayed) / unit
    if not (np.isfinite(z) and np.isfinite(unit)):
        return Measurement(step, quantity, tensor, BROKEN, 0.0, closely)
    return Measurement(step, quantity, tensor, z, threshold * unit / size if size else 0.0, closely)


def equal(step: int, quantity: str, tensor: str, left: np.ndarray, right: np.ndarray) -> Measurement:
    """Compares one tensor to the bit."""
    left, right = np.asarray(left), np.asarray(right)
    same = left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()
    return Measurement(step, quantity, tensor, 0.0 if same else BROKEN, 0.0)


def verdict(measurements: Sequence[Measurement], steps: int, threshold: float = THRESHOLD) -> dict[str, Any]:
    """What verdict.json holds of one recording.

    Args:
      measurements: of every step.
      steps: judged.
      threshold: largest z that passes.
    """
    failed = [m for m in measurements if m.z > threshold]
    worst_first = min(failed, key=lambda m: (m.step, PHASES.index(m.quantity), -m.z), default=None)
    return {
        "verdict": "divergence" if failed else "parity",
        "max_z": max((m.z for m in measurements), default=0.0),
        "threshold": threshold,
        "steps": steps,
        "steps_measured_closely": len({m.step for m in measurements if m.closely}),
        "first_divergence": worst_first and {name: getattr(worst_first, name)
                                             for name in ("step", "quantity", "tensor", "z")},
        "quantities": {quantity: _summary(m for m in measurements if m.quantity == quantity) for quantity in PHASES},
    }


def _summary(measurements: Iterable[Measurement]) -> dict[str, Any]:
    measurements = list(measurements)
    if not measurements:
        return {"compared": 0}
    worst = max(measurements, key=lambda m: m.z)
    detectable = [m.detectable for m in measurements]
    return {"compared": len(measurements), "max_z": worst.z, "step": worst.step, "tensor": worst.tensor,
            "detectable_median": float(np.median(detectable)), "detectable_worst": max(detectable)}
