"""m' = b m + c_t g + e w: the first moment as a line through the recorded tensors."""

from typing import NamedTuple

import numpy as np

from parity.measured import rounding
from parity.measured.history import History
from parity.measured.least_squares import Quality, Solution, quality, solve
from parity.measured.numbers import Measured


class First(NamedTuple):
    """A first moment that is linear in the gradient.

    Attributes:
      decay: b.
      gains: c_t, one a step.
      pull: e, what L2 adds; bounded by 0 +- error if it is not seen.
      increments: [T, N] c_t g + e w.
      noise: [T, N] rounding of the increments.
      quality: how well the line reproduces m'.
    """

    decay: Measured
    gains: tuple[Measured, ...]
    pull: Measured
    increments: np.ndarray
    noise: np.ndarray
    quality: Quality


def fit_first(history: History) -> First:
    """Fits b, c_t and e to a history with a first moment."""
    with_pull = _fit(history, [history.m, history.w])
    pull = with_pull.decays[1]
    fitted = with_pull if pull.is_seen else _fit(history, [history.m])

    gains = np.array([gain.value for gain in fitted.gains])
    increments = gains[:, None] * history.g
    if pull.is_seen:
        increments = increments + pull.value * history.w
    noise = np.zeros_like(increments)
    if pull.is_seen:
        noise = rounding.of_sum(gains[:, None] * history.g, pull.value * history.w)
    return First(
        fitted.decays[0], fitted.gains, pull, increments, noise, fitted.quality
    )


class _Line(NamedTuple):
    decays: list[Measured]
    gains: tuple[Measured, ...]
    quality: Quality


def _fit(history: History, shared: list) -> _Line:
    assert history.m is not None
    assert history.new_m is not None
    sigma = rounding.of_moment(history.m, history.new_m)
    solution = solve_shared(shared, [history.g], history.new_m, sigma)
    if len(shared) > 1:
        sigma = np.hypot(sigma, _cancelled(history, solution))
        solution = solve_shared(shared, [history.g], history.new_m, sigma)
    found = quality(solution.residuals, solution.values.size)
    count, steps = len(shared), len(history.counts)
    numbers = [
        solution.measured(i, stretch=found.rms if found.freedom > 0 else 1.0)
        for i in range(count + steps)
    ]
    return _Line(numbers[:count], tuple(numbers[count:]), found)


def _cancelled(history: History, solution: Solution) -> np.ndarray:
    pull, gains = solution.values[1], solution.values[2:]
    return rounding.of_sum(gains[:, None] * history.g, pull * history.w)


def solve_shared(
    shared: list[np.ndarray], stepwise: list[np.ndarray], y: np.ndarray, sigma
) -> Solution:
    """Fits y by coefficients of all steps and coefficients of one step each.

    Args:
      shared: [T, N] columns with one coefficient.
      stepwise: [T, N] columns with a coefficient a step.
      y: [T, N].
      sigma: [T, N].

    Returns:
      The coefficients of `shared`, then T of every column of `stepwise`.
    """
    steps, size = y.shape
    columns = [column.reshape(-1) for column in shared]
    for column in stepwise:
        for step in range(steps):
            alone = np.zeros((steps, size))
            alone[step] = column[step]
            columns.append(alone.reshape(-1))
    return solve(np.stack(columns, axis=-1), y.reshape(-1), sigma.reshape(-1))
