"""Noise units: how far rounding alone moves each tensor of a step. NumPy only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

Tensors = dict[str, np.ndarray]
Distances = Mapping[str, Any]
"""Name -> Euclidean distance between two tensors: a float or a device scalar, not
finite if an element is not."""

FEW_DRAWS = 2
DRAWS = 5
SOME_DRAWS = 16
MORE_DRAWS = 64


class Draws:
    """Root mean squares of distances over a growing number of draws.

    Args:
      draw: index of a draw, from 0 -> the distance of each output.
    """

    def __init__(self, draw: Callable[[int], Distances]):
        self._draw = draw
        self._draws: list[dict[str, float]] = []

    def units(self, draws: int) -> dict[str, float]:
        """Returns output name -> unit over the first `draws` draws.

        A draw that is not finite is left out; nan where every one overflowed.
        """
        while len(self._draws) < draws:
            drawn = self._draw(len(self._draws))
            # float() waits for the device, so a draw is kept as plain numbers.
            distances = {name: float(distance) for name, distance in drawn.items()}
            self._draws.append(distances)
        return _root_mean_squares(self._draws[:draws])


class Noise(Draws):
    """Noise unit of each output of a function: rms over draws of ||f - f in float64||.

    One draw can be small by luck on a tensor of few elements, so each draw but the
    first moves the inputs to neighbouring numbers. Both precisions start from the same
    moved inputs, so only the rounding inside f is measured, not f's slope.

    Args:
      rounding: inputs -> distances of f in its dtype from f in float64.
      inputs: floating arrays, in the dtype whose rounding is measured.
      seed: seed of the draws.
    """

    def __init__(
        self, rounding: Callable[[Tensors], Distances], inputs: Tensors, seed: int
    ):
        rng = np.random.default_rng(seed)

        def draw(number: int) -> Distances:
            if number == 0:
                return rounding(inputs)
            moved = {name: jitter(array, rng) for name, array in inputs.items()}
            return rounding(moved)

        super().__init__(draw)


class Kinks(Draws):
    """Noise unit near a kink: rms over draws of ||nudged - exact||.

    A ReLU whose input is within rounding of zero may open in one stack and stay shut
    in the other, and the gradient jumps. Moving the inputs leaves such a point; moving
    each layer's output by no more than its own rounding stays there and crosses it in a
    good share of the draws. A draw is the distance between the float64 step and the
    same with every layer's output moved.
    """

    def larger(self, units: Mapping[str, float], draws: int) -> dict[str, float]:
        """Returns the elementwise maximum of `units` and these units."""
        near = self.units(draws)
        return {name: max(units[name], unit) for name, unit in near.items()}


def jitter(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves each value to its upper or lower neighbour, or leaves it.

    The move is drawn uniformly from one ulp either way and rounded. Zeros stay, as
    padding and dead units do, and so do integers (tokens).
    """
    if np.issubdtype(array.dtype, np.integer):
        return array
    shift = rng.uniform(-1, 1, array.shape) * ulp(array, array.dtype)
    moved = (array.astype(np.float64) + shift).astype(array.dtype)
    return np.where(array == 0, array, moved)


def ulp(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns the gap above each magnitude in `dtype`, as float64.

    Below the smallest normal number the gap is that of the subnormals.
    """
    info = ml_dtypes.finfo(dtype)
    magnitude = np.abs(np.asarray(array, np.float64))
    magnitude = np.maximum(magnitude, float(info.smallest_normal))
    # frexp gives a mantissa in [0.5, 1), hence the -1.
    exponent = np.frexp(magnitude)[1] - 1
    return np.ldexp(1.0, exponent - info.nmant)


def norm(array: np.ndarray) -> float:
    """Euclidean norm over all elements, in float64; nan if one is not finite."""
    array = np.asarray(array, np.float64)
    if not np.isfinite(array).all():
        return float("nan")
    return float(np.sqrt(np.sum(np.square(array))))


def distances(left: Tensors, right: Tensors) -> Distances:
    """Returns name -> distance, of every tensor on the right."""
    return {name: norm(left[name] - exact) for name, exact in right.items()}


def _root_mean_squares(draws: Sequence[Distances]) -> dict[str, float]:
    return {
        name: _root_mean_square(np.array([distances[name] for distances in draws]))
        for name in draws[0]
    }


def _root_mean_square(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan")
    return float(np.sqrt(np.mean(np.square(values))))
