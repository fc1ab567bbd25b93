"""RMSprop with momentum: m' = b m + g / (sqrt(v') + eps)."""

import numpy as np

from parity.measured import form as forms
from parity.measured import rounding
from parity.measured.candidates import (
    Candidate,
    Choice,
    choose,
    evaluate,
)
from parity.measured.directions import INSIDE, OUTSIDE, Decays, divided, root_scale
from parity.measured.fit_types import RATE_INSIDE, Fit, Raw
from parity.measured.form import Form
from parity.measured.gradient import (
    Gradient,
    complement,
    of_second,
)
from parity.measured.history import History
from parity.measured.interpret import fit_of
from parity.measured.least_squares import solve, worse
from parity.measured.momentum_fit import is_inside
from parity.measured.numbers import Measured, mean
from parity.measured.root_fit import blur, with_second
from parity.measured.second_moment import (
    fit_squares_alone,
)
from parity.measured.update import fit_update


def fit_momentum_of_root(history: History) -> Fit:
    """RMSprop with momentum: m' = b m + g / (sqrt(v') + eps)."""
    second = fit_squares_alone(history)
    if not second.quality.is_good:
        return Fit("", history.counts, quality=second.quality)
    gradient = of_second(history, second)
    places = [_accumulated(history, gradient, place) for place in (OUTSIDE, INSIDE)]
    inner = choose(places)
    outer = choose([evaluate(history, Form(forms.MOMENTUM), gradient)])
    if not (inner.is_good and outer.is_good):
        quality = worse(inner.best.update.quality, outer.best.update.quality)
        return Fit("", history.counts, quality=quality)

    kept = [complement(shrink) for shrink in inner.best.update.shrinks]
    gains = _gains(history, gradient, inner.best, mean(kept).value)
    form = Form(forms.RMSPROP_MOMENTUM, inner.best.form.place)
    best = outer.best._replace(form=form)
    raw = Raw(gains=gains, squares=second.gains)
    fit = fit_of(Choice(best, [best], False), gradient, raw)
    fit = with_second(fit, second)._replace(b1=mean(kept))
    fit = fit._replace(
        eps=inner.best.update.eps,
        eps_place=_place(inner),
        quality=worse(fit.quality, inner.best.update.quality),
        form=form._replace(decays=Decays(mean(kept).value, second.decay.value)),
    )
    if is_inside(best.update, ""):
        rates = tuple(Measured(abs(gain.value), gain.error) for gain in gains)
        return fit._replace(rates=rates, momentum_form=RATE_INSIDE)
    # The gradient in the direction has the errors of its factors.
    unsure = blur(second)
    plain = all(gain.widened(unsure).holds(1.0) for gain in gains if gain.is_bounded)
    return fit if plain else Fit("", history.counts, quality=fit.quality)


def _gains(
    history: History, gradient: Gradient, inner: Candidate, kept: float
) -> tuple[Measured, ...]:
    """Returns what multiplies the direction in the momentum, whose decay is known."""
    assert history.m is not None
    assert history.new_m is not None
    ones = np.ones(len(gradient.seen))
    towards = divided(history, gradient.seen, inner.form.place, ones)
    column = towards(inner.update.eps.value)[..., None]
    sigma = rounding.of_moment(history.m, history.new_m)
    solution = solve(column, history.new_m - kept * history.m, sigma)
    return tuple(solution.measured(step, 0) for step in range(len(ones)))


def _place(choice: Choice) -> str:
    places = {one.form.place for one in choice.tied}
    return choice.best.form.place if len(places) == 1 else ""


def _accumulated(history: History, gradient: Gradient, place: str) -> Candidate:
    """Fits m' - m = h d(eps) - (1 - b) m, as an update of m in place of w."""
    assert history.m is not None
    assert history.new_m is not None
    buffer = history._replace(w=history.m, new_w=history.new_m)
    ones = np.ones(len(gradient.seen))
    direction = divided(history, gradient.seen, place, ones)
    moved = divided(history, gradient.seen + gradient.noise, place, ones)
    noise = np.abs(moved(0.0) - direction(0.0))
    update = fit_update(buffer, direction, noise, root_scale(history, place))
    return Candidate(Form(forms.RMSPROP_MOMENTUM, place), update)
