"""A fitted formula, applied to the recorded tensors of a step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.measured import form as forms
from parity.measured import rounding
from parity.measured.by_value import clipped
from parity.measured.directions import divided
from parity.measured.fit_types import AVERAGE, COUPLED, Fit
from parity.measured.form import direction
from parity.measured.gradient import pooled
from parity.measured.history import Arrays, History, Step, of_tensor

LOOSE = 100.0
"""Residual, in units of rounding, that the errors of a fit may leave elsewhere."""


class Prediction(NamedTuple):
    """What a formula makes of a step.

    Attributes:
      updated: the parameter after, float64.
      moments: "first" and "second" after, as far as the formula has them.
    """

    updated: np.ndarray
    moments: Arrays


def predict(fit: Fit, step: Step, previous: Step | None = None) -> Prediction:
    """Applies a fit to the tensor that it was made of.

    Args:
      fit: recognised.
      step: one of those that the fit is of.
      previous: the step before, whose gradient a stale fit follows.

    Returns:
      Parameter and moments after the step, in the tensor's shape.

    Raises:
      ValueError: the fit is not recognised, without recorded moments or of other steps.
    """
    if not fit.is_recognised or fit.form.family == forms.UNRECOGNISED:
        raise ValueError(f"{fit.name}: {fit.family}, there is no formula to apply")
    if fit.is_rebuilt:
        raise ValueError(f"{fit.name}: the moments before a step were not recorded")
    if step.count not in fit.counts:
        raise ValueError(f"{fit.name}: step {step.count} was not measured")
    history = of_tensor([step], fit.name)
    if fit.is_stale and previous is not None:
        history = history._replace(g=of_tensor([previous], fit.name).g)
    updated, moments = predict_history(fit, history)
    shape = step.params[fit.name].shape
    return Prediction(
        updated.reshape(shape), {k: m.reshape(shape) for k, m in moments.items()}
    )


def is_reproduced(fit: Fit, steps: Sequence[Step]) -> bool:
    """Returns True if a fit gives every entry of its tensor at every step.

    It was made of some entries. Where moments were not recorded, or entries do not
    move, there is nothing to check.
    """
    if not fit.is_recognised:
        return False
    if fit.is_rebuilt or fit.still or fit.family == forms.STILL:
        return True
    return all(
        _misfit(fit, step, previous) <= LOOSE
        for previous, step in zip([None, *steps], steps)
        if step.count in fit.counts
    )


def _misfit(fit: Fit, step: Step, previous: Step | None) -> float:
    """Returns the largest residual of a step in units of rounding."""
    found = predict(fit, step, previous)
    history = of_tensor([step], fit.name)
    change = found.updated.reshape(-1) - history.new_w[0]
    parts = [np.abs(change) / rounding.of_params(history)[0]]
    for kind, array in found.moments.items():
        before = history.m if kind == "first" else history.v
        after = history.new_m if kind == "first" else history.new_v
        assert before is not None
        assert after is not None
        sigma = rounding.of_moment(before, np.maximum(np.abs(after), np.abs(before)))
        if kind == "first" and fit.raw.pull.is_seen:
            # A decay that cancels the gradient leaves less than it was rounded by.
            sigma = sigma + rounding.of_sum(fit.raw.pull.value * history.w)
        parts.append(np.abs(array.reshape(-1) - after[0]) / sigma[0])
    return max(float(part.max(initial=0.0)) for part in parts)


def predict_history(
    fit: Fit, history: History
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns [T, N] parameters and moments after steps, by a fit of those steps."""
    places = [fit.counts.index(count) for count in history.counts]
    history = clipped(history, fit.value_bound)

    def of_steps(numbers) -> np.ndarray:
        return np.array([numbers[place].value for place in places])[:, None]

    seen, increments = _gradient(fit, history, places, of_steps)
    moments: dict[str, np.ndarray] = {}
    if history.v is not None:
        moments["second"] = _second(fit, history, seen, increments, of_steps)
        history = history._replace(new_v=moments["second"])
    if history.m is not None:
        moments["first"] = _first(fit, history, seen, increments, of_steps)
        history = history._replace(new_m=moments["first"])

    towards = direction(fit.form, history, seen)(_eps(fit))
    change = of_steps(fit.raw.coefficients) * towards
    return history.w - change - of_steps(fit.raw.shrinks) * history.w, moments


def _eps(fit: Fit) -> float:
    return max(fit.eps.value, 0.0) if np.isfinite(fit.eps.value) else 0.0


def _gradient(
    fit: Fit, history: History, places: list[int], of_steps
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gradient as the optimizer took it, and what the moment gains."""
    g, w = history.g, history.w
    if fit.family == forms.SGD:
        return g, g
    if not fit.raw.gains or fit.family == forms.RMSPROP_MOMENTUM:
        seen = pooled(fit.factors)[places][:, None] * g
        is_pulled = fit.decay_kind == COUPLED
        return (seen + fit.decay.value * w if is_pulled else seen), g
    increments = of_steps(fit.raw.gains) * g
    if fit.raw.pull.is_seen:
        increments = increments + fit.raw.pull.value * w
    share = 1 - _first_decay(fit) if fit.momentum_form == AVERAGE else 1.0
    return increments / share, increments


def _first_decay(fit: Fit) -> float:
    return (fit.b2 if fit.family == forms.LION else fit.b1).value


def _first(fit: Fit, history: History, seen, increments, of_steps) -> np.ndarray:
    assert history.m is not None
    if fit.family == forms.RMSPROP_MOMENTUM:
        ones = np.ones(len(seen))
        towards = divided(history, seen, fit.form.place, ones)(_eps(fit))
        increments = of_steps(fit.raw.gains) * towards
    return _first_decay(fit) * history.m + increments


def _second(fit: Fit, history: History, seen, increments, of_steps) -> np.ndarray:
    assert history.v is not None
    if fit.family == forms.ADAMAX:
        return np.maximum(fit.b2.value * history.v, np.abs(seen) + _eps(fit))
    squares = of_steps(fit.raw.squares)
    if fit.raw.gains and fit.family != forms.RMSPROP_MOMENTUM:
        return fit.b2.value * history.v + squares * np.square(increments)
    return fit.b2.value * history.v + squares * np.square(seen)
