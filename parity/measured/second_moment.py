"""v' = b v + c (s_t g + l w)^2: the second moment, an average or a sum of squares."""

from typing import NamedTuple

import numpy as np

from parity.measured import rounding
from parity.measured.first_moment import solve_shared
from parity.measured.history import History
from parity.measured.least_squares import Quality, Solution, quality
from parity.measured.numbers import SIGMAS, UNSEEN, Measured

ROUNDS = 8


class Second(NamedTuple):
    """A second moment.

    Attributes:
      decay: b; 1 is Adagrad's sum.
      gains: of the squared gradient, one a step; with s_t and l below, c.
      factors: s_t, one a step; empty if the gradient was known.
      pull: l, coupled decay.
      quality: how well the formula reproduces v'.
    """

    decay: Measured
    gains: tuple[Measured, ...]
    factors: tuple[Measured, ...]
    pull: Measured
    quality: Quality


def fit_squares(history: History, seen: np.ndarray, noise: np.ndarray) -> Second:
    """Fits squares of a gradient that is known up to a factor.

    Args:
      history: with a second moment.
      seen: [T, N] gradient as the first moment took it.
      noise: [T, N] its rounding.
    """
    solution = _linear(history, [np.square(seen)])
    gains = solution.values[1:, None]
    solution = _linear(history, [np.square(seen)], 2 * gains * seen * noise)
    found = quality(solution.residuals, solution.values.size)
    numbers = _measured(solution, found)
    return Second(numbers[0], tuple(numbers[1:]), (), UNSEEN, found)


def fit_squares_alone(history: History) -> Second:
    """Fits squares of s_t g + l w, whose s_t and l are unknown."""
    g, w = history.g, history.w
    with_pull = _linear(history, [g * g, 2 * g * w, w * w])
    plain = _linear(history, [g * g])
    starts = [_start(plain, len(g)), _start(with_pull, len(g))]
    fits = [_refined(history, start, pulled) for start, pulled in zip(starts, (0, 1))]
    if fits[0].quality.is_good:
        # Of a decay that is not seen, the second fit gives the bound.
        bound = fits[1].pull
        if not bound.is_bounded:
            return fits[0]
        return fits[0]._replace(pull=Measured(0.0, abs(bound.value) + bound.error))
    return fits[1]


class _State(NamedTuple):
    b: float
    pull: float
    factors: np.ndarray
    bounds: np.ndarray
    """Of the factors that are held at 0; 0 elsewhere."""


def _linear(
    history: History, columns: list[np.ndarray], noise: np.ndarray | float = 0.0
) -> Solution:
    assert history.v is not None
    assert history.new_v is not None
    sigma = rounding.of_moment(np.abs(history.v), history.new_v)
    sigma = np.hypot(sigma, noise)
    return solve_shared([history.v], columns, history.new_v, sigma)


def _measured(solution: Solution, found: Quality) -> list[Measured]:
    stretch = found.rms if found.freedom > 0 else 1.0
    return [solution.measured(i, stretch=stretch) for i in range(solution.values.size)]


def _gain(b: float) -> float:
    """Returns c: 1 for a sum, 1 - b for an average."""
    return 1.0 if is_sum(b) else 1 - b


def is_sum(b: float) -> bool:
    """Returns True if b is 1 but for rounding."""
    return abs(1 - b) < 1e-6


def _start(solution: Solution, steps: int) -> _State:
    """Returns b, l and s_t by the coefficients of g^2, 2 g w and w^2."""
    b = float(solution.values[0])
    parts = solution.values[1:].reshape(-1, steps) / _gain(b)
    if len(parts) == 1:
        hidden = SIGMAS * np.minimum(solution.sigmas[1:], 1e30) / _gain(b)
        is_hidden = parts[0] <= hidden
        # A b above 1, a bad fit, turns the sign of everything.
        squares = np.where(is_hidden, 0.0, np.maximum(parts[0], 0))
        bounds = np.where(is_hidden, np.abs(parts[0]) + np.abs(hidden), 0.0)
        return _State(b, 0.0, np.sqrt(squares), np.sqrt(bounds))
    squares, crosses, pulls = parts
    pull = float(np.sqrt(np.median(np.maximum(pulls, 0))))
    if np.median(crosses) < 0:
        pull = -pull
    by_square = np.sqrt(np.maximum(squares, 0))
    by_cross = crosses / pull if pull else by_square
    sigmas = np.minimum(solution.sigmas[1:], 1e30)
    errors = sigmas.reshape(-1, steps) / _gain(b)
    # Whichever of g^2 and 2 g w tells s_t more sharply.
    sharper = errors[0] * abs(pull) < errors[1] * 2 * np.abs(by_square)
    factors = np.where(sharper, by_square, by_cross)
    return _State(b, pull, factors, np.zeros(steps))


def _refined(history: History, state: _State, pulled: int) -> Second:
    """Gauss-Newton in b, l and s_t."""
    assert history.v is not None
    assert history.new_v is not None
    g, w, v = history.g, history.w, history.v
    # At s_t = 0 the square has no slope by s_t.
    is_flat = state.bounds > 0
    g = np.where(is_flat[:, None], 0.0, g)
    sigma = rounding.of_moment(np.abs(v), history.new_v)
    solution = None
    for _ in range(ROUNDS):
        gain = _gain(state.b)
        seen = state.factors[:, None] * g + state.pull * w
        rest = history.new_v - state.b * v - gain * np.square(seen)
        noise = rounding.of_sum(state.factors[:, None] * g, state.pull * w)
        blurred = np.hypot(sigma, 2 * gain * seen * noise)
        by_b = v if gain == 1.0 else v - np.square(seen)
        shared = [by_b, 2 * gain * seen * w][: 1 + pulled]
        solution = solve_shared(shared, [2 * gain * seen * g], rest, blurred)
        change = solution.values
        state = _State(
            state.b + float(change[0]),
            state.pull + (float(change[1]) if pulled else 0.0),
            np.where(is_flat, 0.0, state.factors + change[1 + pulled :]),
            state.bounds,
        )
    assert solution is not None
    return _packed(state, solution, pulled)


def _packed(state: _State, solution: Solution, pulled: int) -> Second:
    found = quality(solution.residuals, solution.values.size)
    values = [state.b, *[state.pull] * pulled, *state.factors]
    bounds = [0.0, *[0.0] * pulled, *state.bounds]
    errors = [
        bound or number.error + 2.0**-24 * abs(value)
        for number, value, bound in zip(_measured(solution, found), values, bounds)
    ]
    numbers = [Measured(float(x), float(e)) for x, e in zip(values, errors)]
    gain = Measured(_gain(state.b), 0.0)
    factors = tuple(numbers[1 + pulled :])
    pull = numbers[1] if pulled else UNSEEN
    return Second(numbers[0], (gain,) * len(factors), factors, pull, found)
