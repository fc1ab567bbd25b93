"""The formulas that a tensor's moments allow, each fitted to its changes."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from parity.measured import corrections
from parity.measured import form as forms
from parity.measured.directions import BEFORE, INSIDE, OUTSIDE, Decays, root_scale
from parity.measured.form import Form, direction
from parity.measured.gradient import Gradient
from parity.measured.history import History
from parity.measured.update import Update, fit_update

SAME = 30.0
"""Difference in squared residuals up to which two formulas explain equally well."""


class Candidate(NamedTuple):
    """A formula and its fit.

    Attributes:
      form: the formula.
      update: its fit.
    """

    form: Form
    update: Update

    @property
    def is_good(self) -> bool:
        """True if rounding explains what the formula leaves."""
        return self.update.quality.is_good

    @property
    def steady(self) -> int:
        """How many steps share a learning rate."""
        return corrections.steady(list(self.update.rates))


class Choice(NamedTuple):
    """The formula that fits best.

    Attributes:
      best: the likeliest of those that fit equally well.
      tied: all that fit equally well and are as steady.
      by_rates: True if only the steadiness of the rates chose among those that fit.
    """

    best: Candidate
    tied: list[Candidate]
    by_rates: bool

    @property
    def is_good(self) -> bool:
        """True if the best formula explains the changes."""
        return self.best.is_good


def evaluate(
    history: History,
    form: Form,
    gradient: Gradient,
    eps: float | None = None,
    moved: History | None = None,
) -> Candidate:
    """Fits one formula.

    Args:
      history: the tensor.
      form: the formula.
      gradient: as the optimizer took it.
      eps: held at this; None: fitted where the family has one.
      moved: the tensor with moments off by their rounding, if they are not exact.
    """
    scale = None
    if form.family in forms.WITH_EPS and eps is None:
        scale = root_scale(history, form.place)
    towards = direction(form, history, gradient.seen)
    noise = np.zeros_like(history.w)
    off = moved or history
    if moved or (form.family in forms.TAKES_GRADIENT and gradient.noise.any()):
        other = direction(form, off, gradient.seen + gradient.noise)
        noise = noise_of(history, towards(0.0), other(0.0))
    return Candidate(form, fit_update(history, towards, noise, scale, eps or 0.0))


def noise_of(history: History, towards: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """[T, N] what a moved direction does to the parameters, at their own rate."""
    change = np.median(np.abs(history.new_w - history.w), axis=1)
    size = np.median(np.abs(towards), axis=1)
    rate = np.divide(change, size, out=np.zeros_like(size), where=size > 0)
    return rate[:, None] * np.abs(moved - towards)


def choose(candidates: Iterable[Candidate]) -> Choice:
    """Returns the best of candidates in order of likelihood."""
    candidates = list(candidates)
    good = [candidate for candidate in candidates if candidate.is_good]
    if not good:
        best = min(candidates, key=lambda one: one.update.quality.rms)
        return Choice(best, [best], False)
    least = min(candidate.update.misfit for candidate in good)
    close = [one for one in good if one.update.misfit <= least + SAME]
    first = close[0]
    most = max(candidate.steady for candidate in close)
    steps = len(first.update.rates)

    if most > first.steady and most >= max(3, 0.6 * steps):
        tied = [candidate for candidate in close if candidate.steady == most]
        return Choice(tied[0], tied, True)
    tied = [candidate for candidate in close if candidate.steady >= first.steady]
    return Choice(first, tied, len(tied) < len(close))


def of_root(history: History, gradient: Gradient, family: str) -> list[Candidate]:
    """RMSprop or Adagrad, eps outside or inside the root."""
    return [
        evaluate(history, Form(family, place), gradient) for place in (OUTSIDE, INSIDE)
    ]


def of_adam(
    history: History,
    gradient: Gradient,
    decays: Decays,
    moved: History | None = None,
) -> list[Candidate]:
    """Adam and its kin: every place of eps, every count of the correction.

    Args:
      history: the tensor.
      gradient: as the optimizer took it.
      decays: of the moments.
      moved: the tensor with moments off by their rounding, if they are not exact.
    """
    base = evaluate(
        history, Form(forms.ADAM, OUTSIDE, 0, decays), gradient, moved=moved
    )
    # Where Adam itself explains all, its rivals need no eps of their own.
    settled = base.is_good and base.steady == len(base.update.rates)
    eps = base.update.eps.value if settled else None
    others = [
        evaluate(
            history, Form(forms.ADAM, OUTSIDE, offset, decays), gradient, eps, moved
        )
        for offset in corrections.offsets(history.counts)
        if offset != 0
    ]
    outside = [base, *others]
    if settled:
        likely = [base] if base.update.eps.is_seen else []
    else:
        ordered = sorted(others, key=lambda one: one.update.misfit)
        likely = [base, *ordered[:2]]
    kin = [
        evaluate(history, Form(family, place, 0, decays), gradient, eps, moved)
        for family, place in KIN
    ]
    return [*outside, *_other_places(history, gradient, likely, moved), *kin]


KIN = (
    (forms.RADAM, BEFORE),
    (forms.RADAM, OUTSIDE),
    (forms.NADAM, OUTSIDE),
    (forms.OPTAX_NADAM, OUTSIDE),
)
"""Adam's kin, with the places of their eps in torch and optax."""


def _other_places(
    history: History,
    gradient: Gradient,
    likely: list[Candidate],
    moved: History | None,
) -> list[Candidate]:
    return [
        evaluate(history, one.form._replace(place=place), gradient, moved=moved)
        for one in likely
        for place in (INSIDE, BEFORE)
        if not (place == BEFORE and one.form.offset is None)
    ]
