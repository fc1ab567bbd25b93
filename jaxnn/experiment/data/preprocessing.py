"""Input scaling, fitted on the training split and kept to scale new data alike."""

import math
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.lazy_rows import Rows, chunks


class Scaling(NamedTuple):
    """x' = (x - offset) * scale in float32, for images of bytes.

    Such images stay uint8, a quarter of the memory, until a device uses them.

    Attributes:
      offset: [channels] float32.
      scale: [channels] float32.
    """

    offset: np.ndarray
    scale: np.ndarray

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Scales a copy of [n, ..., channels] uint8 images to float32."""
        # The operations of `scale_bytes` in both stacks, in their order.
        return (inputs.astype(np.float32) - self.offset) * self.scale

    def invert(self, inputs: np.ndarray) -> np.ndarray:
        """Returns [n, ..., channels] float64 inputs before scaling, up to rounding."""
        return inputs / self.scale.astype(np.float64) + self.offset


class HostScaling(NamedTuple):
    """x' = (x - offset) / divisor in float64, rounded to float32, for all other inputs.

    It is applied once, on the host.

    Attributes:
      offset: float64, broadcastable to an example.
      divisor: float64, broadcastable to an example.
    """

    offset: np.ndarray
    divisor: np.ndarray

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Scales a copy of [n, ...] inputs to float32; overflow becomes infinite."""
        # Callers look for infinities and report them.
        with np.errstate(over="ignore"):
            return ((inputs - self.offset) / self.divisor).astype(np.float32)

    def invert(self, inputs: np.ndarray) -> np.ndarray:
        """Returns [n, ...] float64 inputs before scaling, up to rounding."""
        return inputs * self.divisor + self.offset


def fit(method: str, inputs: np.ndarray | Rows) -> Scaling | HostScaling | None:
    """Fits a scaling to training inputs; None: leave them as they are.

    Images of bytes have one offset and scale per channel, sequences one per feature,
    tables and images of floats one per number of an example.

    Args:
      method: name in `METHODS`.
      inputs: [n, ...] training inputs, read in chunks. Tokens allow only "none".
    """
    return METHODS[method](inputs)


def standardize(inputs: np.ndarray | Rows) -> Scaling | HostScaling:
    """Zero mean and unit (population) standard deviation; constants become 0."""
    mean, deviation = _moments(inputs, _axes(inputs))
    return _scaling(inputs, mean, deviation)


def min_max(inputs: np.ndarray | Rows) -> Scaling | HostScaling:
    """Minimum 0 and maximum 1 (bytes: 0 and 255 become 0 and 1); constants become 0."""
    if inputs.dtype == np.uint8:
        channels = inputs.shape[-1]
        return _scaling(inputs, np.zeros(channels), np.full(channels, 255.0))

    axes = _axes(inputs)
    extremes = [(rows.min(axis=axes), rows.max(axis=axes)) for rows in chunks(inputs)]
    lows, highs = zip(*extremes)
    low = np.min(lows, axis=0).astype(np.float64)
    high = np.max(highs, axis=0).astype(np.float64)
    return _scaling(inputs, low, high - low)


def _axes(inputs: np.ndarray | Rows) -> tuple[int, ...]:
    """Axes over which the statistics of a scaling are taken."""
    is_pooled = inputs.dtype == np.uint8 or inputs.ndim == 3
    return tuple(range(inputs.ndim - 1)) if is_pooled else (0,)


def _moments(
    inputs: np.ndarray | Rows, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation in float64."""
    count = math.prod(inputs.shape[axis] for axis in axes)
    if inputs.dtype == np.uint8:
        return _byte_moments(inputs, axes, count)

    # Two passes over chunks: subtracting the mean first avoids the cancellation of
    # E[x^2] - E[x]^2, and there is never a float64 copy of all inputs.
    sums = (rows.sum(axis=axes, dtype=np.float64) for rows in chunks(inputs))
    mean = np.asarray(sum(sums) / count)
    squares = (np.square(rows - mean).sum(axis=axes) for rows in chunks(inputs))
    return mean, np.sqrt(np.asarray(sum(squares)) / count)


def _byte_moments(
    inputs: np.ndarray | Rows, axes: tuple[int, ...], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation from exact sums, in one pass."""
    # uint16 holds the square of a byte, uint64 the sum of 2^48 of them.
    sums = [
        (
            rows.sum(axis=axes, dtype=np.uint64),
            np.square(rows, dtype=np.uint16).sum(axis=axes, dtype=np.uint64),
        )
        for rows in chunks(inputs)
    ]
    totals, squares = (np.sum(of_chunks, axis=0).tolist() for of_chunks in zip(*sums))

    # Python's integers do not overflow, so that the difference is exact.
    moments = [
        (total / count, math.sqrt((count * square - total * total) / count**2))
        for total, square in zip(totals, squares)
    ]
    mean, deviation = np.array(moments).T
    return mean, deviation


def _scaling(
    inputs: np.ndarray | Rows, offset: np.ndarray, divisor: np.ndarray
) -> Scaling | HostScaling:
    # A constant feature is 0 after the offset, whatever the divisor.
    divisor = np.where(divisor == 0, 1.0, divisor)
    if inputs.dtype == np.uint8:
        return Scaling(offset.astype(np.float32), (1 / divisor).astype(np.float32))
    return HostScaling(offset, divisor)


METHODS = {"none": lambda inputs: None, "standardize": standardize, "min_max": min_max}
