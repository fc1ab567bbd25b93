"""Distances of one recorded tensor from its replay, in noise units. NumPy only.

    z = ||replayed - recorded|| / max(noise unit, one ulp of the storage dtype, in norm)

A tensor passes at z <= 8. A value that must be equal to the bit and is not, or that is
not finite, is infinitely far away.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import Number
from parity.judging.gap import gap
from parity.noise import norm, ulp
from parity.quantities import ORDER, QUANTITIES, Key, Quantity

THRESHOLD = 8.0
"""Largest z that passes."""
UNEQUAL = math.inf
"""z of an equality that is broken, and of a comparison with a value that is not
finite."""


class Measurement(NamedTuple):
    """One tensor of one step, compared.

    Attributes:
      step: step index, from 0.
      quantity: name of its quantity, a key of QUANTITIES.
      tensor: canonical name; empty for a scalar.
      z: distance in noise units; UNEQUAL if no number of units says it.
      detectable: smallest relative error that would have failed; 0 for an equality.
      closely: failed with few draws of noise and was measured again with many.
      gap: how an equality is broken, in words; else empty.
    """

    step: int
    quantity: str
    tensor: str
    z: float
    detectable: float
    closely: bool = False
    gap: str = ""

    @property
    def key(self) -> Key:
        """Quantity and tensor."""
        return self.quantity, self.tensor

    @property
    def definition(self) -> Quantity:
        """Definition of the quantity that was measured."""
        return QUANTITIES[self.quantity]


def measure(
    step: int,
    quantity: str,
    tensor: str,
    recorded: Number,
    replayed: Number,
    unit: float,
    storage: np.dtype,
    scale: float = 1.0,
    threshold: float = THRESHOLD,
    closely: bool = False,
) -> Measurement:
    """Compares one tensor with its replay, in noise units.

    Args:
      step: step index, from 0.
      quantity: name of the quantity.
      tensor: canonical name; empty for a scalar.
      recorded: tensor as the stack wrote it.
      replayed: float64 tensor that JAX computes from the recorded inputs.
      unit: noise unit, a Euclidean norm.
      storage: dtype that the stack held the tensor in, before unscaling.
      scale: factor that the tensor was multiplied by in that dtype (loss scale).
      threshold: largest z that passes.
      closely: kept with the measurement.
    """
    # A gradient of 2^-20 under a loss scale of 2^16 was stored as 2^-4: its ulp is
    # that of the scaled number, divided by the scale.
    scaled = np.asarray(recorded, np.float64) * scale
    floor = norm(ulp(scaled, storage) / scale)
    unit = max(unit, floor)
    size = norm(recorded)
    # Two infinities have no distance, which is none that passes.
    with np.errstate(invalid="ignore"):
        z = norm(np.asarray(recorded, np.float64) - replayed) / unit
    if not (np.isfinite(z) and np.isfinite(unit)):
        return Measurement(step, quantity, tensor, UNEQUAL, 0.0, closely)
    detectable = threshold * unit / size if size else 0.0
    return Measurement(step, quantity, tensor, z, detectable, closely)


def equal(
    step: int, quantity: str, tensor: str, left: Number, right: Number
) -> Measurement:
    """Compares one tensor to the bit; NaN and infinity are never equal to anything.

    Args:
      step: step index, from 0.
      quantity: name of the quantity.
      tensor: canonical name; empty for a scalar.
      left: as recorded.
      right: as expected.
    """
    left = np.asarray(left)
    right = np.asarray(right)
    same_layout = left.shape == right.shape and left.dtype == right.dtype
    # Bytes, because 0.0 == -0.0 although the two behave differently downstream.
    same = same_layout and left.tobytes() == right.tobytes()
    passes = same and bool(np.isfinite(left).all())
    if passes:
        return Measurement(step, quantity, tensor, 0.0, 0.0)
    return Measurement(step, quantity, tensor, UNEQUAL, 0.0, gap=gap(left, right))


def first_failed(
    measurements: Iterable[Measurement], threshold: float, order: Sequence[str]
) -> Measurement | None:
    """Returns the first divergence, or None at parity.

    The first in time: by step, by quantity, by the order of computation within a
    quantity (activations forward, gradients backward), then by size.

    Args:
      measurements: measurements of any number of steps, in any order.
      threshold: largest z that passes.
      order: names of layers and gradients in the order in which a step computes them;
        names that are missing come last.
    """
    places = {name: place for place, name in enumerate(order)}

    def when(m: Measurement) -> tuple[float, ...]:
        place = places.get(m.tensor, len(places)) if m.definition.is_ordered else 0
        return m.step, ORDER[m.quantity], place, -m.z

    failed = (m for m in measurements if m.z > threshold)
    return min(failed, key=when, default=None)


def spell_z(z: float) -> str:
    """Returns a distance in noise units as every table, page and sentence has it."""
    if z == UNEQUAL:
        return "unequal"
    return f"{z:.2f}" if z < 100 else f"{z:.1e}"


def spell_worst(quantity: str, z: float) -> str:
    """Returns the largest z of a quantity; "equal" for an equality that holds."""
    if QUANTITIES[quantity].is_exact and z == 0:
        return "equal"
    return spell_z(z)


def z_as_json(z: float) -> float | str:
    """Returns a distance as JSON, which has no infinity: a number or "unequal"."""
    return "unequal" if z == UNEQUAL else z


def z_from_json(value: float | str) -> float:
    """Inverse of `z_as_json`."""
    return UNEQUAL if value == "unequal" else float(value)
