"""Clipping by a norm: where gradients are cut, factor times norm is one number."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.measured.fit_types import Fit
from parity.measured.history import History
from parity.measured.numbers import UNSEEN, Measured, agree

PLAIN = 1e-4
"""A factor nearer to 1 than this is no clipping: an eps may be in its formula."""
EPS = 1e-6
"""What torch and DeepSpeed add to the norm, and optax does not (MISMATCHES D7)."""

GLOBAL = "a global norm"
GLOBAL_EPS = f"a global norm, to which {EPS:g} is added,"
TENSOR = "a norm of its own for each tensor,"
FIXED = "a global norm, smaller ones too,"

Norms = Sequence[float]


class Clip(NamedTuple):
    """How gradients were clipped.

    Attributes:
      form: whose norm it is, one of those above; "" if the factors are no clipping.
      bound: norm that they were clipped to.
    """

    form: str
    bound: Measured


NO_CLIP = Clip("", UNSEEN)


def global_norms(histories: Mapping[str, History]) -> tuple[float, ...]:
    """Returns the norm of all gradients together, one a step."""
    squares = sum(np.sum(np.square(h.g), axis=1) for h in histories.values())
    return tuple(float(norm) for norm in np.sqrt(squares))


def clip_of(fits: Mapping[str, Fit], histories: Mapping[str, History]) -> Clip:
    """Returns how the gradients of all tensors were clipped.

    Args:
      fits: name -> fit.
      histories: name -> recorded tensor.
    """
    measured = {n: f for n, f in fits.items() if f.is_recognised and f.factors}
    if not measured or any(fit.is_stale for fit in measured.values()):
        return NO_CLIP
    first = next(iter(measured.values()))
    alike = all(
        agree(a, b) for f in measured.values() for a, b in zip(f.factors, first.factors)
    )
    if alike:
        return _of_all(first.factors, global_norms(histories))
    norms = {name: global_norms({name: histories[name]}) for name in measured}
    return _of_each([(fit.factors, norms[name]) for name, fit in measured.items()])


def _of_all(factors: Sequence[Measured], norms: Norms) -> Clip:
    more = [norm + EPS for norm in norms]
    for form, bound in (
        (GLOBAL, threshold(factors, norms)),
        (GLOBAL_EPS, threshold(factors, more)),
        (FIXED, _constant(factors, norms)),
    ):
        if bound.is_seen:
            return Clip(form, bound)
    return NO_CLIP


def _of_each(tensors: Sequence[tuple[Sequence[Measured], Norms]]) -> Clip:
    """Returns the clip of tensors by their own norms, if all are cut to the same."""
    cut = [(f, norms) for f, norms in tensors if not _are_plain(f)]
    bounds = [threshold(factors, norms) for factors, norms in cut]
    if len(bounds) < 2 or not all(bound.is_seen for bound in bounds):
        return NO_CLIP
    least = min(bounds, key=lambda bound: bound.error)
    # A tensor that was not cut must have had no reason to be.
    highest = least.high * (1 + PLAIN)
    innocent = all(max(norms) <= highest for f, norms in tensors if _are_plain(f))
    alike = innocent and all(agree(bound, least) for bound in bounds)
    return Clip(TENSOR, least) if alike else NO_CLIP


def _are_plain(factors: Sequence[Measured]) -> bool:
    return all(factor.holds(1.0) for factor in factors)


def threshold(factors: Sequence[Measured], norms: Norms) -> Measured:
    """Returns the norm that clipping by these factors keeps; unseen if it is another.

    Args:
      factors: what multiplied the gradients, one a step.
      norms: of the gradients.
    """
    cut = [f.is_bounded and f.high < 1 - PLAIN for f in factors]
    plain = [f.holds(1.0) for f in factors]
    if sum(cut) < 2 or not all(a or b for a, b in zip(cut, plain)):
        return UNSEEN
    products = _products(factors, norms, cut)
    first = products[0]
    highest = first.high * (1 + PLAIN)
    below = all(is_cut or norm <= highest for norm, is_cut in zip(norms, cut))
    one = all(agree(first, product) for product in products)
    varied = any(not agree(f, factors[0]) for f in factors)
    return first if one and below and varied else UNSEEN


def _constant(factors: Sequence[Measured], norms: Norms) -> Measured:
    """Returns the norm that all gradients are given, smaller ones too."""
    if not all(factor.is_seen for factor in factors):
        return UNSEEN
    products = _products(factors, norms, [True] * len(factors))
    one = all(agree(products[0], product) for product in products)
    raised = any(factor.low > 1 + PLAIN for factor in factors)
    varied = any(not agree(f, factors[0]) for f in factors)
    return products[0] if one and raised and varied else UNSEEN


def _products(
    factors: Sequence[Measured], norms: Norms, cut: Sequence[bool]
) -> list[Measured]:
    # A program adds up its norm in float32, or in its own order.
    return [
        Measured(f.value * norm, (f.error + 1e-5 * f.value) * norm)
        for f, norm, is_cut in zip(factors, norms, cut)
        if is_cut
    ]
