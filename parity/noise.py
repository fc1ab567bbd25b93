"""How much rounding alone would move each tensor of a step: the unit that differences
are measured in. NumPy only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

Tensors = dict[str, np.ndarray]
Distances = Mapping[str, Any]
"""Name -> Euclidean distance of two tensors, a number or what becomes one; not finite
if an element is not."""
FEW_DRAWS, DRAWS, SOME_DRAWS, MORE_DRAWS = 2, 5, 16, 64


class Draws:
    """Root mean squares over a growing number of draws; one that is not finite is left
    out.

    Args:
      draw: number of a draw, from 0 -> the distance of each output.
    """

    def __init__(self, draw: Callable[[int], Distances]):
        self._draw = draw
        self._draws: list[dict[str, float]] = []

    def units(self, draws: int) -> dict[str, float]:
        """Output name -> unit over the first `draws` draws; nan where every one
        overflowed."""
        while len(self._draws) < draws:
            drawn = self._draw(len(self._draws))
            self._draws.append(
                {name: float(distance) for name, distance in drawn.items()}
            )
        return _root_mean_squares(self._draws[:draws])


class Noise(Draws):
    """The noise unit of each output of a function f: root mean square over draws of ||f
    in its format - f in float64||.

    One draw can be small by luck on a tensor of few elements, so each draw but the
    first moves the inputs to neighbouring numbers; both precisions start from the same
    moved inputs, so that only the rounding inside f is measured. A draw that overflows
    is left out.

    Args:
      rounding: inputs -> those distances.
      inputs: floating arrays, in the format whose rounding is measured.
      seed: of the draws.
    """

    def __init__(
        self, rounding: Callable[[Tensors], Distances], inputs: Tensors, seed: int
    ):
        rng = np.random.default_rng(seed)
        super().__init__(
            lambda number: rounding(
                {name: jitter(array, rng) for name, array in inputs.items()}
                if number
                else inputs
            )
        )


class Kinks(Draws):
    """The noise unit near a kink: root mean square over draws of ||nudged - exact||.

    A ReLU whose input is within rounding of zero may open in one stack and stay shut in
    the other, and the gradient jumps. Moving the inputs leaves such a point; moving
    each layer's output by no more than its own rounding stays there and crosses it in a
    good share of the draws. A draw is the distances between the outputs of the float64
    step and those with every layer's output moved.
    """

    def larger(self, units: Mapping[str, float], draws: int) -> dict[str, float]:
        """Those units, or these where they are larger."""
        return {
            name: max(units[name], unit) for name, unit in self.units(draws).items()
        }


def jitter(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each value moved to its upper or lower neighbour or left, by a draw of up to one
    ulp; zeros and tokens stay."""
    if np.issubdtype(array.dtype, np.integer):
        return array
    shift = rng.uniform(-1, 1, array.shape) * ulp(array, array.dtype)
    return np.where(
        array == 0, array, (array.astype(np.float64) + shift).astype(array.dtype)
    )


def ulp(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64: the gap above each magnitude among the numbers of `dtype`, subnormals
    included."""
    info = ml_dtypes.finfo(dtype)
    magnitude = np.maximum(
        np.abs(np.asarray(array, np.float64)), float(info.smallest_normal)
    )
    return np.ldexp(1.0, np.frexp(magnitude)[1] - 1 - info.nmant)


def norm(array: np.ndarray) -> float:
    """Euclidean norm over all elements, in float64; nan if one is not finite."""
    array = np.asarray(array, np.float64)
    return (
        float(np.sqrt(np.sum(np.square(array))))
        if np.isfinite(array).all()
        else float("nan")
    )


def _root_mean_squares(draws: Sequence[Distances]) -> dict[str, float]:
    return {
        name: _root_mean_square(np.array([distances[name] for distances in draws]))
        for name in draws[0]
    }


def _root_mean_square(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else float("nan")
