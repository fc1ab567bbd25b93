"""How much rounding alone would move each tensor of a step: the unit that differences are measured in. NumPy only."""

from collections.abc import Callable

import ml_dtypes
import numpy as np

Tensors = dict[str, np.ndarray]
DRAWS = 5
MORE_DRAWS = 64


def noise_units(function: Callable[[Tensors, np.dtype], Tensors], inputs: Tensors, dtype: np.dtype,
                rng: np.random.Generator, draws: int = DRAWS) -> dict[str, float]:
    """The noise unit of each output: root mean square over draws of ||f in `dtype` - f in float64||.

    One draw can be small by luck on a tensor of few elements, so each draw but the first moves the
    inputs to neighbouring numbers; both precisions start from the same moved inputs, so that only
    the rounding inside `function` is measured. A draw that overflows in `dtype` is left out.

    Args:
      function: (inputs, dtype) -> outputs as float64 arrays.
      inputs: floating arrays, in `dtype`.
      dtype: the precision whose rounding is measured.
      rng: source of the draws.
      draws: how many.

    Returns:
      Output name -> Euclidean norm; nan where every draw overflowed.
    """
    distances: dict[str, list[float]] = {}
    for draw in range(draws):
        moved = {name: jitter(array, rng) if draw else array for name, array in inputs.items()}
        low, high = function(moved, dtype), function(moved, np.dtype(np.float64))
        for name in low:
            distances.setdefault(name, []).append(norm(low[name] - high[name]))
    return {name: _root_mean_square(np.array(values)) for name, values in distances.items()}


def kink_units(nudged: Callable[[int], Tensors], exact: Tensors, draws: int = MORE_DRAWS) -> dict[str, float]:
    """The noise unit near a kink: root mean square over draws of ||nudged - exact||.

    A ReLU whose input is within rounding of zero may open in one stack and stay shut in the other,
    and the gradient jumps. Moving the inputs leaves such a point; moving each layer's output by no
    more than its own rounding stays there and crosses it in a good share of the draws.

    Args:
      nudged: seed -> outputs of the float64 step with every layer's output moved.
      exact: the float64 step's outputs.
      draws: how many.
    """
    distances = [{name: norm(value - exact[name]) for name, value in nudged(seed).items()} for seed in range(draws)]
    return {name: _root_mean_square(np.array([d[name] for d in distances])) for name in exact}


def jitter(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each value moved to its upper or lower neighbour or left, by a draw of up to one ulp; zeros and tokens stay."""
    if np.issubdtype(array.dtype, np.integer):
        return array
    shift = rng.uniform(-1, 1, array.shape) * ulp(array, array.dtype)
    return np.where(array == 0, array, (array.astype(np.float64) + shift).astype(array.dtype))


def ulp(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64: the gap above each magnitude among the numbers of `dtype`, subnormals included."""
    info = ml_dtypes.finfo(dtype)
    magnitude = np.maximum(np.abs(np.asarray(array, np.float64)), float(info.smallest_normal))
    return np.exp2(np.floor(np.log2(magnitude)) - info.nmant)


def norm(array: np.ndarray) -> float:
    """Euclidean norm over all elements, in float64; nan if one is not finite."""
    array = np.asarray(array, np.float64)
    return float(np.sqrt(np.sum(np.square(array)))) if np.isfinite(array).all() else float("nan")


def _root_mean_square(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else float("nan")
