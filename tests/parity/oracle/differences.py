"""Checks derivatives by central differences."""

import numpy as np

from parity.oracle.operations import total
from parity.oracle.tensor import gradients, variable

STEP = np.finfo(np.float64).eps ** (1 / 3)


def check_derivatives(function, shapes, seed, low=0.5, high=2.0):
    """Compares gradients with differences along a random direction of each argument.

    The truncation error is STEP^2 f''' / 6, the rounding error eps f / STEP = STEP^2 f.
    On [1/2, 2] the third derivatives of the tested functions are below 100 times the
    sum of the magnitudes of their values.

    Args:
      function: tensors -> tensor.
      shapes: shapes of its arguments.
      seed: seed of the random arguments.
      low: least value of an argument.
      high: largest value of an argument.
    """
    rng = np.random.default_rng(seed)
    values = [rng.uniform(low, high, shape) for shape in shapes]
    weights = rng.uniform(-1, 1, np.shape(function(*map(variable, values)).value))

    def objective(arrays):
        tensors = [variable(array) for array in arrays]
        return total(function(*tensors) * weights), tensors

    output, tensors = objective(values)
    size = 1 + np.abs(function(*tensors).value * weights).sum() * 4
    for number, derivative in enumerate(gradients(output, tensors)):
        assert derivative.shape == shapes[number]
        direction = rng.uniform(-1, 1, shapes[number])
        ends = [
            objective(
                [
                    *values[:number],
                    values[number] + sign * STEP * direction,
                    *values[number + 1 :],
                ]
            )
            for sign in (1, -1)
        ]
        difference = (ends[0][0].value - ends[1][0].value) / (2 * STEP)
        assert abs(np.sum(derivative * direction) - difference) <= 100 * STEP**2 * size
