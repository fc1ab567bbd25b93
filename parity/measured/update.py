"""w' - w = -R_t d_t(eps) - D_t w: rates, decay and eps from the change of a tensor."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from parity.measured import rounding
from parity.measured.history import History
from parity.measured.least_squares import Quality, Solution, quality, solve
from parity.measured.numbers import SIGMAS, UNSEEN, Measured

Direction = Callable[[float], np.ndarray]
"""eps -> [T, N] direction of the updates."""

DECADES = np.linspace(-8, 4, 13)
"""Where eps is searched: powers of ten of the root of the second moment."""

SEARCHED = 128
"""Entries that the search takes; the rounds after it take all."""

ROUNDS = 12


class Update(NamedTuple):
    """A direction fitted to the changes of a tensor.

    Attributes:
      rates: R_t, one a step.
      shrinks: D_t, one a step: rate times decoupled decay.
      eps: the direction's eps; unseen if it has none.
      quality: how well the changes are reproduced.
      misfit: sum of squared residuals in units of rounding.
    """

    rates: tuple[Measured, ...]
    shrinks: tuple[Measured, ...]
    eps: Measured
    quality: Quality
    misfit: float


def fit_update(
    history: History,
    direction: Direction,
    noise: np.ndarray,
    scale: float | None = None,
    fixed: float = 0.0,
) -> Update:
    """Fits the rates, the decay and eps of one direction.

    Args:
      history: the tensor.
      direction: eps -> direction.
      noise: [T, N] rounding of the parameters beyond that of the update itself.
      scale: typical size of what eps is added to; None: eps is `fixed`.
      fixed: eps that is not fitted.
    """
    sigma = np.hypot(rounding.of_params(history), noise)
    if scale is None:
        return _with_fixed(history, direction, sigma, fixed)
    eps = _coarse(history, direction, sigma, scale)
    return _refined(history, direction, sigma, scale, eps)


def residuals(history: History, direction: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """[T, N] what a direction leaves of the changes, in units of sigma."""
    return _solve(history, direction, sigma).residuals


def _with_fixed(
    history: History, direction: Direction, sigma: np.ndarray, eps: float
) -> Update:
    solution = _solve(history, direction(eps), sigma)
    return _packed(solution, UNSEEN, np.zeros_like(solution.values))


def _solve(history: History, direction: np.ndarray, sigma: np.ndarray) -> Solution:
    columns = np.stack([-direction, -history.w], axis=-1)
    return solve(columns, history.new_w - history.w, sigma)


def _coarse(
    history: History, direction: Direction, sigma: np.ndarray, scale: float
) -> float:
    candidates = [0.0, *(scale * 10.0**DECADES)]
    few = slice(None, None, 1 + history.w.shape[1] // SEARCHED)
    part, sigma = history.at(few), sigma[:, few]

    def misfit(eps: float) -> float:
        residuals = _solve(part, direction(eps)[:, few], sigma).residuals
        return float(np.sum(np.square(residuals)))

    return min(candidates, key=misfit)


def _refined(
    history: History,
    direction: Direction,
    sigma: np.ndarray,
    scale: float,
    eps: float,
) -> Update:
    """Gauss-Newton in eps; rates and decay are eliminated at every round."""
    for _ in range(ROUNDS):
        solution, slope, moves = _slope(history, direction, sigma, scale, eps)
        curvature = float(np.sum(np.square(slope)))
        if not curvature > 0:
            return _packed(solution, Measured(eps, np.inf), moves)
        change = float(np.sum(slope * solution.residuals)) / curvature
        previous, eps = eps, float(max(eps + change, eps / 10))
        if abs(eps - previous) <= 1e-9 * eps:
            break
    solution, slope, moves = _slope(history, direction, sigma, scale, eps)
    found = quality(solution.residuals, solution.values.size)
    curvature = float(np.sum(np.square(slope)))
    if not curvature > 0:
        return _packed(solution, Measured(eps, np.inf), moves)
    deviation = 1 / np.sqrt(curvature)
    stretch = max(1.0, min(found.rms, 1e9))
    error = float(SIGMAS * deviation * stretch)
    return _packed(solution, Measured(float(eps), error + 2.0**-22 * eps), moves)


def _slope(
    history: History,
    direction: Direction,
    sigma: np.ndarray,
    scale: float,
    eps: float,
) -> tuple[Solution, np.ndarray, np.ndarray]:
    """Returns the fit, the residuals' derivative by eps, and the coefficients'."""
    small = 1e-4 * max(eps, 1e-6 * scale)
    here = _solve(history, direction(eps), sigma)
    bent = (direction(eps + small) - direction(eps)) / small
    column = -here.values[:, :1] * bent
    columns = np.stack([-direction(eps), -history.w], axis=-1)
    eliminated = solve(columns, column, sigma)
    return here, eliminated.residuals, -eliminated.values


def _packed(solution: Solution, eps: Measured, moves: np.ndarray) -> Update:
    found = quality(solution.residuals, solution.values.size)
    stretch = found.rms if found.freedom > 0 else 1.0
    along = np.abs(moves) * eps.error if eps.is_bounded else np.zeros_like(moves)
    steps = range(len(solution.values))

    def measured(step: int, column: int, floor: float) -> Measured:
        number = solution.measured(step, column, stretch=stretch)
        extra = float(along[step, column]) + floor
        # Rates pass through a few float32 operations on their way to the weights.
        return number.widened(extra + 2.0**-22 * abs(number.value))

    return Update(
        tuple(measured(step, 0, 0.0) for step in steps),
        # w (1 - rate decay): the factor is a float32 near 1.
        tuple(measured(step, 1, 1.2 * rounding.HALF_ULP) for step in steps),
        eps,
        found,
        float(np.sum(np.square(solution.residuals))),
    )
