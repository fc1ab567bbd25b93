"""Measurements of one recorded step -> z scores -> verdict and first divergence. NumPy
only.

    z = ||replayed - recorded|| / max(noise unit, one ulp of the storage format, in norm)

A step passes at z <= 8. What must be equal to the bit and is not counts as `BROKEN`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.noise import norm, ulp

PARITY, DIVERGENCE, COULD_NOT_JUDGE = 0, 1, 2
"""Exit codes of every command that judges."""
THRESHOLD = 8.0
BROKEN = 1e308
"""The z of a broken equality, and of a comparison with a value that is not finite."""

EXACT = (
    "params",
    "batch",
    "optimizer_step",
    "learning_rate",
    "loss_scale",
    "skipped",
    "unchanged",
)
PHASES = (
    "params",
    "batch",
    "optimizer_step",
    "learning_rate",
    "loss_scale",
    "activations",
    "loss",
    "batch_stats",
    "grads",
    "grad_norm",
    "skipped",
    "moments",
    "updated",
    "unchanged",
)
"""Quantities in the order in which a step makes them."""
LEARNED = ("grads", "moments", "updated")
"""Quantities of a step that is not skipped."""
ORDERED = ("activations", "grads")
"""Quantities whose tensors are made one after the other."""


class Measurement(NamedTuple):
    """One tensor of one step.

    Attributes:
      step: counted from 0.
      quantity: one of PHASES.
      tensor: canonical name; empty for a scalar.
      z: distance in noise units.
      detectable: the smallest relative error that would have been caught; 0 for an
        equality.
      closely: whether it failed with few draws of noise and was measured again with
        many.
    """

    step: int
    quantity: str
    tensor: str
    z: float
    detectable: float
    closely: bool = False


def measure(
    step: int,
    quantity: str,
    tensor: str,
    recorded: np.ndarray,
    replayed: np.ndarray,
    unit: float,
    storage: np.dtype,
    scale: float = 1.0,
    threshold: float = THRESHOLD,
    closely: bool = False,
) -> Measurement:
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
    return Measurement(
        step, quantity, tensor, z, threshold * unit / size if size else 0.0, closely
    )


def equal(
    step: int, quantity: str, tensor: str, left: np.ndarray, right: np.ndarray
) -> Measurement:
    """Compares one tensor to the bit; what is not finite is never equal."""
    left, right = np.asarray(left), np.asarray(right)
    same = (
        left.shape == right.shape
        and left.dtype == right.dtype
        and left.tobytes() == right.tobytes()
        and bool(np.isfinite(left).all())
    )
    return Measurement(step, quantity, tensor, 0.0 if same else BROKEN, 0.0)


def verdict(
    measurements: Sequence[Measurement],
    steps: int,
    threshold: float = THRESHOLD,
    order: Sequence[str] = (),
) -> dict[str, Any]:
    """What verdict.json holds of one recording.

    Args:
      measurements: of every step.
      steps: judged.
      threshold: largest z that passes.
      order: names of activations and gradients in the order in which a step makes them;
        those left out come after.

    Raises:
      UserError: there is nothing to judge by: no tensor, or no step that was not
        skipped.
    """
    if not any(m.quantity not in EXACT for m in measurements) or steps < 1:
        raise UserError(
            f"cannot judge: no tensor of {steps} steps was measured; record at least "
            "one, --record=full"
        )
    first = first_failed(measurements, threshold, order)
    if first is None and all(m.quantity not in LEARNED for m in measurements):
        raise UserError(
            f"cannot judge: each of {steps} steps was skipped by an overflow, so "
            "nothing was learned; record more (--steps) or start from a smaller loss "
            "scale (--initial_scale_power)"
        )
    return {
        "verdict": "divergence" if first else "parity",
        "max_z": max((m.z for m in measurements), default=0.0),
        "threshold": threshold,
        "steps": steps,
        "steps_measured_closely": len({m.step for m in measurements if m.closely}),
        "first_divergence": first
        and {
            name: getattr(first, name) for name in ("step", "quantity", "tensor", "z")
        },
        "quantities": {
            quantity: _summary(m for m in measurements if m.quantity == quantity)
            for quantity in PHASES
        },
    }


def first_failed(
    measurements: Iterable[Measurement], threshold: float, order: Sequence[str]
) -> Measurement | None:
    """The first divergence: by step, by phase, by order (activations and gradients) and
    by size; None at parity."""
    places = {name: place for place, name in enumerate(order)}

    def when(m: Measurement) -> tuple[float, ...]:
        place = places.get(m.tensor, len(places)) if m.quantity in ORDERED else 0
        return m.step, PHASES.index(m.quantity), place, -m.z

    return min((m for m in measurements if m.z > threshold), key=when, default=None)


def _summary(measurements: Iterable[Measurement]) -> dict[str, Any]:
    measurements = list(measurements)
    if not measurements:
        return {"compared": 0}
    worst = max(measurements, key=lambda m: m.z)
    detectable = [m.detectable for m in measurements]
    return {
        "compared": len(measurements),
        "max_z": worst.z,
        "step": worst.step,
        "tensor": worst.tensor,
        "detectable_median": float(np.median(detectable)),
        "detectable_worst": max(detectable),
    }


if __name__ == "__main__":
    from parity import compare

    compare.start()
