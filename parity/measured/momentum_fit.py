"""Momentum in every form, and Lion: a first moment alone."""

from parity.measured import form as forms
from parity.measured import lion
from parity.measured.candidates import (
    choose,
    evaluate,
)
from parity.measured.directions import Decays
from parity.measured.first_moment import First
from parity.measured.fit_types import RATE_INSIDE, Fit, Raw
from parity.measured.form import Form
from parity.measured.gradient import (
    of_average,
    of_momentum,
)
from parity.measured.history import History
from parity.measured.interpret import fit_of
from parity.measured.least_squares import worse
from parity.measured.numbers import UNSEEN, Measured, mean, ratio
from parity.measured.update import Update


def fit_momentum(history: History, first: First) -> Fit:
    """Momentum in every form, Nesterov's, or Lion."""
    if not first.quality.is_good:
        return Fit("", history.counts, quality=first.quality)
    b = first.decay.value
    gradient = of_momentum(history, first)
    ball = Decays(b, 0.0)
    plain = [Form(forms.MOMENTUM, decays=ball), Form(forms.NESTEROV, decays=ball)]
    choice = choose(evaluate(history, form, gradient) for form in plain)
    raw = Raw(gains=first.gains, pull=first.pull)
    if not choice.is_good:
        return _lion(history, first, raw)

    fit = fit_of(choice, gradient, raw)._replace(b1=first.decay)
    fit = fit._replace(quality=worse(fit.quality, first.quality))
    inside = is_inside(choice.best.update, gradient.form)
    return _with_rate_inside(fit, first) if inside else fit


def is_inside(update: Update, form: str) -> bool:
    """Returns True if the moment itself is what is added to the weights."""
    signs = (-1.0,) if form else (-1.0, 1.0)
    return any(
        all(rate.holds(sign) and rate.error < 1e-2 for rate in update.rates)
        for sign in signs
    )


def _with_rate_inside(fit: Fit, first: First) -> Fit:
    rates = tuple(Measured(abs(gain.value), gain.error) for gain in first.gains)
    decay = mean([ratio(first.pull, gain) for gain in first.gains])
    unknown = (UNSEEN,) * len(rates)
    return fit._replace(
        rates=rates, momentum_form=RATE_INSIDE, factors=unknown, decay=decay
    )


def _lion(history: History, first: First, raw: Raw) -> Fit:
    gradient = of_average(first)
    mix = lion.fit_mix(history, gradient.seen)
    decays = Decays(mix.value, first.decay.value)
    if not mix.is_bounded:
        return Fit("", history.counts, quality=first.quality)
    candidate = evaluate(history, Form(forms.LION, decays=decays), gradient)
    fit = fit_of(choose([candidate]), gradient, raw)
    quality = worse(fit.quality, first.quality)
    return fit._replace(b1=mix, b2=first.decay, quality=quality)
