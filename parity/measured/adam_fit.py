"""Adam and its kin: a first and a second moment."""

from parity.measured import corrections
from parity.measured import form as forms
from parity.measured.candidates import (
    choose,
    evaluate,
    of_adam,
)
from parity.measured.directions import Decays
from parity.measured.first_moment import First
from parity.measured.fit_types import AVERAGE, Fit, Raw
from parity.measured.form import Form
from parity.measured.gradient import (
    Gradient,
    complement,
    of_average,
)
from parity.measured.history import History
from parity.measured.infinity_norm import fit_maximum
from parity.measured.interpret import fit_of
from parity.measured.least_squares import worse
from parity.measured.numbers import Measured, agree, mean
from parity.measured.root_fit import with_second
from parity.measured.second_moment import (
    fit_squares,
)


def fit_both(history: History, first: First) -> Fit:
    """Adam and its kin."""
    gradient = of_average(first)
    second = fit_squares(history, first.increments, first.noise)
    if not second.quality.is_good:
        return _maximum(history, first, gradient)

    # v' gains q (c g + e w)^2, where c g + e w = (1 - b1) seen.
    share = complement(first.decay)
    squared = Measured(share.value**2, 2 * share.value * share.error)
    gained = [_product(gain, squared) for gain in second.gains]
    gain = mean(gained)
    consistent = agree(gain, complement(second.decay)) and gain.is_seen
    if not consistent:
        return Fit("", history.counts, quality=first.quality)

    decays = Decays(first.decay.value, 1 - gain.value)
    choice = choose(of_adam(history, gradient, decays))
    raw = Raw(first.gains, first.pull, second.gains)
    fit = fit_of(choice, gradient, raw)
    fit = with_second(fit, second)._replace(b1=first.decay, complement=gain)
    fit = fit._replace(quality=worse(fit.quality, first.quality))
    # What the errors of both decays do to the corrections.
    blur = share.error / share.value + gain.error / gain.value / 2
    blurs = blur + corrections.blur(decays, history.counts)
    rates = [
        rate.widened(abs(rate.value) * float(error))
        for rate, error in zip(fit.rates, blurs)
    ]
    eps = fit.eps.widened(abs(fit.eps.value) * float(blurs.max()))
    return fit._replace(rates=tuple(rates), eps=eps, momentum_form=AVERAGE)


def _product(a: Measured, b: Measured) -> Measured:
    error = abs(a.value) * b.error + abs(b.value) * a.error
    return Measured(a.value * b.value, error)


def _maximum(history: History, first: First, gradient: Gradient) -> Fit:
    """Adamax."""
    plain = all(factor.holds(1.0) for factor in gradient.factors)
    if plain and not first.pull.is_seen:
        gradient = gradient._replace(seen=history.g)
    second = fit_maximum(history, gradient.seen)
    if not second.quality.is_good:
        return Fit("", history.counts, quality=second.quality)
    decays = Decays(first.decay.value, second.decay.value)
    offsets = (0, 1, None, 2)
    choice = choose(
        evaluate(history, Form(forms.ADAMAX, "", offset, decays), gradient)
        for offset in offsets
    )
    fit = fit_of(choice, gradient, Raw(first.gains, first.pull))
    quality = worse(worse(fit.quality, first.quality), second.quality)
    fit = fit._replace(b1=first.decay, b2=second.decay, eps=second.eps)
    return fit._replace(quality=quality, momentum_form=AVERAGE)
