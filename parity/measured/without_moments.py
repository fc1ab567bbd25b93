"""Momentum, RMSprop and Adam from weights and gradients alone."""

import itertools

import numpy as np
from scipy import optimize

from parity.measured import form as forms
from parity.measured import rebuilt, rounding
from parity.measured.candidates import Candidate, choose, evaluate, noise_of, of_adam
from parity.measured.directions import OUTSIDE, Decays, root_scale
from parity.measured.fit_types import Fit
from parity.measured.form import Form, direction
from parity.measured.history import History
from parity.measured.interpret import fit_of, unseen
from parity.measured.least_squares import quality
from parity.measured.numbers import Measured
from parity.measured.rebuilt import Recipe
from parity.measured.update import SEARCHED, residuals

RECIPES = {
    forms.MOMENTUM: Recipe(has_heavy_ball=True),
    forms.NESTEROV: Recipe(has_heavy_ball=True),
    forms.ADAGRAD: Recipe(has_sum=True),
    forms.RMSPROP: Recipe(has_second=True),
    forms.ADAM: Recipe(has_average=True, has_second=True),
}

STARTS = (0.5, 0.9, 0.99, 0.999)
"""Decays that the search starts from."""

TRIED = 3
"""Starts that are followed, the best first."""

LONGEST = 25
"""Evaluations of a search."""


def fit_rebuilt(history: History) -> Fit | None:
    """Returns the first family that fits; None if none does.

    The gradients are taken as the optimizer saw them: a factor on them, or L2, is not
    searched for.

    Args:
      history: since update 0, without moments.
    """
    part = history.at(slice(None, None, 1 + history.w.shape[1] // SEARCHED))
    for family in RECIPES:
        numbers = _decays(part, family)
        if numbers is None:
            continue
        fit = _fit(history, family, numbers)
        if fit.is_recognised:
            return fit
    return None


def fit_like(history: History, lender: Fit) -> Fit:
    """Fits the family and the decays that another tensor was rebuilt with."""
    decays = [one for one in (lender.b1, lender.b2) if one.is_bounded]
    family = forms.ADAM if lender.family == forms.ADAMW else lender.family
    return _fit(history, family, decays)


def _decays(history: History, family: str) -> list[Measured] | None:
    """Searches the decays of a family; None if it does not fit."""
    recipe = RECIPES[family]
    has_eps = family in forms.WITH_EPS
    rounded = rounding.of_params(history)

    def misfits(numbers: np.ndarray) -> np.ndarray:
        decays = rebuilt.decays_of(numbers[: recipe.decays])
        known = rebuilt.with_moments(history, recipe, decays)
        form = _form(family, decays)
        off = rebuilt.with_rounding(known, recipe, decays)
        towards = direction(form, known, history.g)
        moved = direction(form, off, history.g)
        noise = noise_of(history, towards(0.0), moved(0.0))
        sigma = np.hypot(rounded, noise)
        # eps in units of the root, which keeps the search well scaled.
        scale = root_scale(known, OUTSIDE) if has_eps else 0.0
        eps = scale * abs(float(numbers[-1])) if has_eps else 0.0
        return residuals(known, towards(eps), sigma).reshape(-1)

    starts = [
        np.append(np.log(1 - np.array(decays)), [1e-4] * has_eps)
        for decays in itertools.product(STARTS, repeat=recipe.decays)
    ]
    starts.sort(key=lambda start: float(np.sum(np.square(misfits(start)))))
    for start in starts[:TRIED]:
        # As far as float64 goes: residuals begin at 10^7 roundings.
        found = optimize.least_squares(
            misfits, start, x_scale="jac", ftol=1e-12, xtol=1e-12, max_nfev=LONGEST
        )
        fits = quality(found.fun, found.x.size + 2 * len(history.counts))
        if fits.is_good:
            return rebuilt.measured(found.x, found.jac, fits.rms, recipe.decays)
    return None


def _form(family: str, decays: np.ndarray) -> Form:
    place = OUTSIDE if family in forms.WITH_EPS else ""
    if not decays.size:
        return Form(family, place)
    first, second = float(decays[0]), float(decays[-1])
    return Form(family, place, 0, Decays(first, second))


def _fit(history: History, family: str, numbers: list[Measured]) -> Fit:
    recipe = RECIPES[family]
    decays = np.array([number.value for number in numbers])
    known = rebuilt.with_moments(history, recipe, decays)
    off = rebuilt.with_rounding(known, recipe, decays)
    choice = choose(_candidates(known, family, decays, off))
    fit = fit_of(choice, unseen(history))
    blur = sum(number.error / (1 - number.value) for number in numbers)
    names = ["b1"] * (recipe.decays - recipe.has_second) + ["b2"] * recipe.has_second
    rates = tuple(rate.widened(abs(rate.value) * blur) for rate in fit.rates)
    return fit._replace(rates=rates, is_rebuilt=True, **dict(zip(names, numbers)))


def _candidates(
    known: History, family: str, decays: np.ndarray, off: History
) -> list[Candidate]:
    form = _form(family, decays)
    if family == forms.ADAM:
        return of_adam(known, unseen(known), form.decays, off)
    return [evaluate(known, form, unseen(known), moved=off)]
