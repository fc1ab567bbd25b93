"""What an optimizer did, tensor by tensor, from its recorded steps."""

from collections.abc import Mapping, Sequence

import numpy as np

from parity.measured.borrowing import borrowed
from parity.measured.by_value import bound_of, clipped
from parity.measured.clipping import clip_of, global_norms
from parity.measured.fit_types import Fit
from parity.measured.form import SGD, STILL
from parity.measured.history import History, Step, of_tensor, sampled, still
from parity.measured.kinds import fit_moving
from parity.measured.numbers import Measured


def measure(steps: Sequence[Step]) -> dict[str, Fit]:
    """Measures what the optimizer did to every tensor.

    A tensor too small to measure borrows the numbers of a larger one if they reproduce
    it.

    Args:
      steps: consecutive updates, without those that were skipped; at least 2.

    Returns:
      Name -> fit. A tensor that no formula fits is "unrecognised".

    Raises:
      ValueError: fewer than 2 steps.
    """
    if len(steps) < 2:
        raise ValueError("at least 2 steps are needed to measure an optimizer")
    histories = {name: of_tensor(steps, name) for name in steps[0].params}
    fits = {name: measure_tensor(one, name) for name, one in histories.items()}
    fits |= _clipped_by_value(fits, histories)
    fits = {name: borrowed(fit, histories[name], fits) for name, fit in fits.items()}
    norms = global_norms(histories)
    clip = clip_of(fits, histories)
    return {
        name: fit._replace(
            norms=norms[len(norms) - len(fit.counts) :],
            clip_norm=clip.bound,
            clip_form=clip.form,
        )
        for name, fit in fits.items()
    }


def _clipped_by_value(
    fits: Mapping[str, Fit], histories: Mapping[str, History]
) -> dict[str, Fit]:
    """Returns fits of tensors that are recognised once their gradients are clipped."""
    unknown = {n: histories[n] for n, fit in fits.items() if not fit.is_recognised}
    bound = bound_of(unknown)
    if not bound.is_seen:
        return {}
    again = {
        name: measure_tensor(clipped(history, bound), name)
        for name, history in unknown.items()
    }
    return {
        name: fit._replace(value_bound=bound)
        for name, fit in again.items()
        if fit.is_recognised
    }


def measure_tensor(history: History, name: str = "") -> Fit:
    """Measures one tensor by itself; see `measure`."""
    fixed = still(history)
    size = history.w.shape[1]
    if fixed.all():
        return Fit(name, history.counts, STILL, still=size, size=size)
    # Rounding may keep entries in place: only if it does not explain them are the
    # others fitted alone.
    fit = fit_moving(sampled(history))
    frozen = fixed.any() and not fit.is_recognised
    if frozen:
        fit = fit_moving(sampled(history.at(~fixed)))
    # A rate that rounding hides lets every formula through.
    if not (fit.is_recognised and any(rate.is_seen for rate in fit.rates)):
        return Fit(name, history.counts, quality=fit.quality, size=size)
    first = int(fit.is_stale)
    fit = fit._replace(name=name, counts=history.counts[first:], size=size)
    kept = int(fixed.sum()) if frozen else 0
    return fit._replace(zero_steps=_zero_steps(fit), still=kept)


def _zero_steps(fit: Fit) -> tuple[int, ...]:
    factors = fit.rates if fit.family == SGD else fit.factors
    seen = [factor.value for factor in factors if factor.is_seen]
    if not seen:
        return ()
    typical = float(np.median(np.abs(seen)))

    def is_zero(factor: Measured) -> bool:
        return factor.is_bounded and factor.holds(0) and factor.error < typical / 10

    return tuple(count for count, f in zip(fit.counts, factors) if is_zero(f))
