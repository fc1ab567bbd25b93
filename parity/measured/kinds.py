"""One tensor's fit, by which moments were recorded."""

import numpy as np

from parity.measured import corrections, lion, rounding
from parity.measured import form as forms
from parity.measured.candidates import (
    Candidate,
    Choice,
    choose,
    evaluate,
    of_adam,
    of_root,
)
from parity.measured.directions import INSIDE, OUTSIDE, Decays, divided, root_scale
from parity.measured.first_moment import First, fit_first
from parity.measured.fit_types import AVERAGE, RATE_INSIDE, Fit, Raw
from parity.measured.form import Form
from parity.measured.gradient import (
    Gradient,
    complement,
    of_average,
    of_momentum,
    of_second,
)
from parity.measured.history import History
from parity.measured.infinity_norm import fit_maximum
from parity.measured.interpret import fit_of, unseen
from parity.measured.least_squares import solve, worse
from parity.measured.numbers import UNSEEN, Measured, agree, mean, ratio
from parity.measured.rebuilt import can_rebuild
from parity.measured.second_moment import (
    Second,
    fit_squares,
    fit_squares_alone,
    is_sum,
)
from parity.measured.update import Update, fit_update
from parity.measured.without_moments import fit_rebuilt


def fit_moving(history: History) -> Fit:
    """Fits a tensor by its gradients, by those of the step before, or by all of them.

    Args:
      history: the entries that move.
    """
    fit = _fit(history)
    if fit.is_recognised or len(history.counts) < 4:
        return fit
    late = _fit(history.delayed())
    if late.is_recognised:
        return late._replace(is_stale=True)
    return (fit_rebuilt(history) if can_rebuild(history) else None) or fit


def _fit(history: History) -> Fit:
    if history.m is None:
        return _sgd(history) if history.v is None else _second_alone(history)
    first = fit_first(history)
    if history.v is None:
        return _first_alone(history, first)
    if first.quality.is_good:
        return _both(history, first)
    return _momentum_of_root(history)


def _sgd(history: History) -> Fit:
    """w' - w = -R g - D w."""
    choice = choose([evaluate(history, Form(forms.SGD), unseen(history))])
    return fit_of(choice, unseen(history))


def _first_alone(history: History, first: First) -> Fit:
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
    is_inside = _is_inside(choice.best.update, gradient.form)
    return _with_rate_inside(fit, first) if is_inside else fit


def _is_inside(update: Update, form: str) -> bool:
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


def _second_alone(history: History) -> Fit:
    """RMSprop or Adagrad."""
    second = fit_squares_alone(history)
    if not second.quality.is_good:
        return Fit("", history.counts, quality=second.quality)
    gradient = of_second(history, second)
    family = forms.ADAGRAD if is_sum(second.decay.value) else forms.RMSPROP
    choice = choose(of_root(history, gradient, family))
    fit = fit_of(choice, gradient, Raw(squares=second.gains))
    fit = _with_second(fit, second)
    return fit._replace(rates=_widened(fit.rates, _blur(second)))


def _blur(second: Second) -> float:
    """Returns the relative error of the gradient in the direction."""
    seen = [factor for factor in second.factors if factor.is_seen]
    return max((factor.error / abs(factor.value) for factor in seen), default=0.0)


def _widened(rates: tuple[Measured, ...], relative: float) -> tuple[Measured, ...]:
    return tuple(rate.widened(abs(rate.value) * relative) for rate in rates)


def _both(history: History, first: First) -> Fit:
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
    fit = _with_second(fit, second)._replace(b1=first.decay, complement=gain)
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


def _momentum_of_root(history: History) -> Fit:
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
    fit = _with_second(fit, second)._replace(b1=mean(kept))
    fit = fit._replace(
        eps=inner.best.update.eps,
        eps_place=_place(inner),
        quality=worse(fit.quality, inner.best.update.quality),
        form=form._replace(decays=Decays(mean(kept).value, second.decay.value)),
    )
    if _is_inside(best.update, ""):
        rates = tuple(Measured(abs(gain.value), gain.error) for gain in gains)
        return fit._replace(rates=rates, momentum_form=RATE_INSIDE)
    # The gradient in the direction has the errors of its factors.
    blur = _blur(second)
    plain = all(gain.widened(blur).holds(1.0) for gain in gains if gain.is_bounded)
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


def _with_second(fit: Fit, second: Second) -> Fit:
    quality = worse(fit.quality, second.quality)
    share = complement(second.decay)
    return fit._replace(b2=second.decay, complement=share, quality=quality)
