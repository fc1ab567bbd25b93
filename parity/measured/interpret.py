"""From coefficients to what they mean: rates, decay, factors, correction."""

import numpy as np

from parity.measured import form as forms
from parity.measured.candidates import Choice
from parity.measured.corrections import Correction
from parity.measured.fit_types import COUPLED, DECOUPLED, EITHER, Fit, Raw
from parity.measured.gradient import Gradient
from parity.measured.history import History
from parity.measured.numbers import UNSEEN, Measured, mean, ratio

CORRECTED = (forms.ADAM, forms.ADAMW, forms.ADAMAX)
"""Families whose correction's count is measured."""

NO_RAW = Raw()

NAMES = {forms.OPTAX_NADAM: forms.NADAM}


def unseen(history: History) -> Gradient:
    """Returns the gradient of a tensor without moments: its factor is not seen."""
    unknown = (UNSEEN,) * len(history.counts)
    return Gradient(unknown, UNSEEN, history.g, np.zeros_like(history.g))


def fit_of(choice: Choice, gradient: Gradient, raw: Raw = NO_RAW) -> Fit:
    """Returns the fit of a chosen formula; "unrecognised" if it is not good.

    Args:
      choice: the formula and its rivals.
      gradient: as the optimizer took it.
      raw: coefficients of the moments.
    """
    if not choice.is_good:
        return Fit("", (), quality=choice.best.update.quality)
    form, update = choice.best
    rates = update.rates
    decay, kind = _decay(choice, gradient)
    family = NAMES.get(form.family, form.family)
    if family == forms.ADAM and kind == DECOUPLED:
        family = forms.ADAMW
    families = [NAMES.get(one.form.family, one.form.family) for one in choice.tied]
    rivals = {one for one in families if one not in (family, form.family)}
    return Fit(
        name="",
        counts=(),
        family=family,
        alternatives=tuple(sorted(rivals)),
        quality=update.quality,
        rates=rates,
        eps=update.eps,
        eps_place=_place(choice),
        decay=decay,
        decay_kind=kind,
        factors=gradient.factors,
        correction=_correction(choice) if family in CORRECTED else None,
        momentum_form=gradient.form,
        dampening=gradient.dampening,
        form=form,
        raw=raw._replace(coefficients=update.rates, shrinks=update.shrinks),
    )


def _decay(choice: Choice, gradient: Gradient) -> tuple[Measured, str]:
    update = choice.best.update
    parts = [ratio(d, rate) for d, rate in zip(update.shrinks, update.rates)]
    decoupled = mean(parts)
    form = choice.best.form.family
    if form == forms.SGD:
        return decoupled, EITHER if decoupled.is_seen else ""
    if gradient.pull.is_seen:
        return gradient.pull, COUPLED
    if decoupled.is_seen:
        is_open = form in forms.TAKES_GRADIENT and gradient.pull.holds(decoupled.value)
        return decoupled, EITHER if is_open else DECOUPLED
    return _larger(gradient.pull, decoupled), ""


def _larger(a: Measured, b: Measured) -> Measured:
    """Returns an interval about 0 that holds both."""
    if not (a.is_bounded and b.is_bounded):
        return UNSEEN
    return Measured(0.0, max(abs(end) for end in (a.low, a.high, b.low, b.high)))


def _place(choice: Choice) -> str:
    places = {one.form.place for one in choice.tied}
    is_seen = choice.best.update.eps.is_seen and len(places) == 1
    return choice.best.form.place if is_seen else ""


def _correction(choice: Choice) -> Correction:
    rivals = {one.form.offset for one in choice.tied}
    return Correction(choice.best.form.offset, len(rivals) == 1)
