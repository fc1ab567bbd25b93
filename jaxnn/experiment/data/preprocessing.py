"""Input scaling, fitted on the training split alone, and kept so that new data can be
scaled alike."""

import math
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.lazy_rows import Rows, parts


class Scaling(NamedTuple):
    """x' = (x - offset) * scale in float32: of images of bytes, which stay bytes until
    a device uses them.

    Attributes:
      offset: [channels] float32.
      scale: [channels] float32.
    """

    offset: np.ndarray
    scale: np.ndarray

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Scaled float32 copy of [n, ..., channels] bytes, as a device makes it."""
        return (inputs.astype(np.float32) - self.offset) * self.scale

    def invert(self, inputs: np.ndarray) -> np.ndarray:
        """float64 [n, ..., channels]: what was scaled, but for rounding."""
        return inputs / self.scale.astype(np.float64) + self.offset


class HostScaling(NamedTuple):
    """x' = (x - offset) / divisor in float64, rounded to float32: of all else, before
    it leaves the host.

    Attributes:
      offset: float64, broadcastable to an example.
      divisor: float64, as `offset`.
    """

    offset: np.ndarray
    divisor: np.ndarray

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Scaled float32 copy of [n, ...] inputs; infinite where float32 ends."""
        with np.errstate(over="ignore"):
            return ((inputs - self.offset) / self.divisor).astype(np.float32)

    def invert(self, inputs: np.ndarray) -> np.ndarray:
        """float64 [n, ...]: what was scaled, but for rounding."""
        return inputs * self.divisor + self.offset


def fit(method: str, inputs: np.ndarray | Rows) -> Scaling | HostScaling | None:
    """The scaling that a training split asks for; None: leave the inputs as they are.

    Images of bytes share one offset and scale a channel, sequences one a feature;
    tables and images of floats have one for each of their numbers.

    Args:
      method: a name in `METHODS`.
      inputs: [n, ...] training inputs, not tokens unless the method is "none"; gone
        through a part at a time.
    """
    return METHODS[method](inputs)


def standardize(inputs: np.ndarray | Rows) -> Scaling | HostScaling:
    """Mean 0 and (population) standard deviation 1; a constant feature becomes 0."""
    axes = _axes(inputs)
    return _scaling(inputs, *_moments(inputs, axes))


def min_max(inputs: np.ndarray | Rows) -> Scaling | HostScaling:
    """[0, 1]: from the smallest to the largest value, of bytes from 0 to 255; a
    constant feature becomes 0."""
    if inputs.dtype == np.uint8:
        return _scaling(
            inputs, np.zeros(inputs.shape[-1]), np.full(inputs.shape[-1], 255.0)
        )
    axes = _axes(inputs)
    lows, highs = zip(
        *((part.min(axis=axes), part.max(axis=axes)) for part in parts(inputs))
    )
    low, high = (
        np.min(lows, axis=0).astype(np.float64),
        np.max(highs, axis=0).astype(np.float64),
    )
    return _scaling(inputs, low, high - low)


def _axes(inputs: np.ndarray | Rows) -> tuple[int, ...]:
    pooled = inputs.dtype == np.uint8 or inputs.ndim == 3
    return tuple(range(inputs.ndim - 1)) if pooled else (0,)


def _moments(
    inputs: np.ndarray | Rows, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) in float64, of bytes from exact sums; never with a wider copy
    of all."""
    count = math.prod(inputs.shape[axis] for axis in axes)
    if inputs.dtype == np.uint8:
        return _byte_moments(inputs, axes, count)
    mean = sum(part.sum(axis=axes, dtype=np.float64) for part in parts(inputs)) / count
    return mean, np.sqrt(
        sum(np.square(part - mean).sum(axis=axes) for part in parts(inputs)) / count
    )


def _byte_moments(
    inputs: np.ndarray | Rows, axes: tuple[int, ...], count: int
) -> tuple[np.ndarray, np.ndarray]:
    sums = [
        (
            part.sum(axis=axes, dtype=np.uint64),
            np.square(part, dtype=np.uint16).sum(axis=axes, dtype=np.uint64),
        )
        for part in parts(inputs)
    ]
    totals, squares = (np.sum(of_parts, axis=0).tolist() for of_parts in zip(*sums))
    moments = [
        (total / count, math.sqrt((count * square - total * total) / count**2))
        for total, square in zip(totals, squares)
    ]  # in whole numbers of any size
    mean, deviation = np.array(moments).T
    return mean, deviation


def _scaling(
    inputs: np.ndarray | Rows, offset: np.ndarray, divisor: np.ndarray
) -> Scaling | HostScaling:
    divisor = np.where(divisor == 0, 1.0, divisor)
    if inputs.dtype == np.uint8:
        return Scaling(offset.astype(np.float32), (1 / divisor).astype(np.float32))
    return HostScaling(offset, divisor)


METHODS = {"none": lambda inputs: None, "standardize": standardize, "min_max": min_max}
