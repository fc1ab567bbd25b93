"""RMSprop and Adagrad: g over the root of a second moment."""

from parity.measured import form as forms
from parity.measured.candidates import (
    choose,
    of_root,
)
from parity.measured.fit_types import Fit, Raw
from parity.measured.gradient import (
    complement,
    of_second,
)
from parity.measured.history import History
from parity.measured.interpret import fit_of
from parity.measured.least_squares import worse
from parity.measured.numbers import Measured
from parity.measured.second_moment import (
    Second,
    fit_squares_alone,
    is_sum,
)


def fit_root(history: History) -> Fit:
    """RMSprop or Adagrad."""
    second = fit_squares_alone(history)
    if not second.quality.is_good:
        return Fit("", history.counts, quality=second.quality)
    gradient = of_second(history, second)
    family = forms.ADAGRAD if is_sum(second.decay.value) else forms.RMSPROP
    choice = choose(of_root(history, gradient, family))
    fit = fit_of(choice, gradient, Raw(squares=second.gains))
    fit = with_second(fit, second)
    return fit._replace(rates=_widened(fit.rates, blur(second)))


def blur(second: Second) -> float:
    """Returns the relative error of the gradient in the direction."""
    seen = [factor for factor in second.factors if factor.is_seen]
    return max((factor.error / abs(factor.value) for factor in seen), default=0.0)


def _widened(rates: tuple[Measured, ...], relative: float) -> tuple[Measured, ...]:
    return tuple(rate.widened(abs(rate.value) * relative) for rate in rates)


def with_second(fit: Fit, second: Second) -> Fit:
    """Adds what was measured of the second moment, and the worse of both qualities."""
    quality = worse(fit.quality, second.quality)
    share = complement(second.decay)
    return fit._replace(b2=second.decay, complement=share, quality=quality)
