"""1 - b^t: the correction of moments for their start at 0, and the count it uses."""

from typing import NamedTuple

import numpy as np

from parity.measured.numbers import Measured, agree

NONE = None
"""The moments are not corrected."""


class Correction(NamedTuple):
    """How moments are corrected for their start at 0.

    Attributes:
      offset: added to the recorded count; 0 where the first update counts as the first;
        None: nothing is corrected.
      is_measured: False if the recording shows no difference to a count that is right.
    """

    offset: int | None
    is_measured: bool


def factors(decay: float, counts: tuple[int, ...], offset: int | None) -> np.ndarray:
    """[T] 1 - decay^t, t = count + 1 + offset; ones if nothing is corrected."""
    if offset is None:
        return np.ones(len(counts))
    number = np.array(counts, np.float64) + 1 + offset
    return 1 - decay ** np.maximum(number, 1)


def blur(decays: tuple[float, float], counts: tuple[int, ...]) -> np.ndarray:
    """[T] relative error of sqrt(1 - b2^t) / (1 - b1^t), powers taken in float32."""
    first, second = (factors(decay, counts, 0) for decay in decays)
    return 2.0**-23 * (1 / first + 0.5 / second)


def offsets(counts: tuple[int, ...]) -> list[int | None]:
    """Returns the offsets that are tried, the likeliest first."""
    first = counts[0]
    near = [0, 1, NONE, 2, 3, -1, -2, -3, 4, 5]
    restarted = [-first + start for start in range(3)]
    both = near + [offset for offset in restarted if offset not in near]
    return [offset for offset in both if offset is None or first + offset >= 0]


def steady(rates: list[Measured]) -> int:
    """Returns how many steps share the rate that most of them have."""
    return max(sum(agree(a, b) for b in rates) for a in rates)
