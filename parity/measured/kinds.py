"""One tensor's fit, by which moments were recorded."""

from parity.measured import form as forms
from parity.measured.adam_fit import fit_both
from parity.measured.candidates import (
    choose,
    evaluate,
)
from parity.measured.first_moment import fit_first
from parity.measured.fit_types import Fit
from parity.measured.form import Form
from parity.measured.history import History
from parity.measured.interpret import fit_of, unseen
from parity.measured.momentum_fit import fit_momentum
from parity.measured.rebuilt import can_rebuild
from parity.measured.root_fit import fit_root
from parity.measured.root_momentum_fit import fit_momentum_of_root
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
        return _sgd(history) if history.v is None else fit_root(history)
    first = fit_first(history)
    if history.v is None:
        return fit_momentum(history, first)
    if first.quality.is_good:
        return fit_both(history, first)
    return fit_momentum_of_root(history)


def _sgd(history: History) -> Fit:
    """w' - w = -R g - D w."""
    choice = choose([evaluate(history, Form(forms.SGD), unseen(history))])
    return fit_of(choice, unseen(history))
