"""A small tensor's numbers from a larger one, where they reproduce it."""

from collections.abc import Mapping

import numpy as np

from parity.measured import rounding
from parity.measured.fit_types import DECOUPLED, EITHER, Fit, Raw
from parity.measured.form import STILL
from parity.measured.history import History, sampled
from parity.measured.least_squares import Quality, quality, worse
from parity.measured.numbers import UNSEEN, Measured
from parity.measured.predict import predict_history
from parity.measured.rebuilt import can_rebuild
from parity.measured.without_moments import fit_like

LENDERS = 3
"""Larger tensors whose numbers are tried."""

ZERO = Measured(0.0, 0.0)


def borrowed(fit: Fit, history: History, fits: Mapping[str, Fit]) -> Fit:
    """Returns a tensor's fit, or that of a larger tensor which holds here as well.

    Args:
      fit: of the tensor alone.
      history: of the tensor.
      fits: of every tensor alone.
    """
    if fit.is_recognised:
        return fit
    if can_rebuild(history):
        return _rebuilt(fit, history, fits)
    lenders = [one for one in fits.values() if _can_lend(one)]
    largest = sorted(lenders, key=lambda one: -one.size)[:LENDERS]
    for lender in largest:
        for lent in (lender, _undecayed(lender)):
            found = _quality(lent, history)
            if found.is_good:
                return lent._replace(
                    name=fit.name,
                    quality=found,
                    size=fit.size,
                    still=0,
                    borrowed_from=lender.name,
                )
    return fit


def _rebuilt(fit: Fit, history: History, fits: Mapping[str, Fit]) -> Fit:
    lenders = [one for one in fits.values() if one.is_rebuilt]
    for lender in sorted(lenders, key=lambda one: -one.size)[:LENDERS]:
        like = fit_like(sampled(history), lender)
        if like.is_recognised and any(rate.is_seen for rate in like.rates):
            known = dict(name=fit.name, counts=history.counts, size=fit.size)
            return like._replace(**known, borrowed_from=lender.name)
    return fit


def _can_lend(fit: Fit) -> bool:
    usable = fit.is_recognised and fit.family != STILL
    return usable and not fit.is_stale and not fit.is_rebuilt


def _undecayed(fit: Fit) -> Fit:
    """Returns a fit without decay: whether a small tensor decays is not seen."""
    raw: Raw = fit.raw._replace(pull=UNSEEN)
    if fit.decay_kind in (DECOUPLED, EITHER):
        raw = raw._replace(shrinks=(ZERO,) * len(raw.shrinks))
    return fit._replace(raw=raw, decay=UNSEEN, decay_kind="")


def _quality(fit: Fit, history: History) -> Quality:
    updated, moments = predict_history(fit, history)
    sigma = rounding.of_params(history)
    found = quality((history.new_w - updated) / sigma, 0)
    recorded = {
        "first": (history.m, history.new_m),
        "second": (history.v, history.new_v),
    }
    for kind, array in moments.items():
        before, after = recorded[kind]
        assert before is not None
        assert after is not None
        sigma = rounding.of_moment(np.abs(before), after)
        found = worse(found, quality((after - array) / sigma, 0))
    return found
