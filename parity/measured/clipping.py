"""Clipping by the global norm: the factors times the norms are one number."""

from collections.abc import Mapping, Sequence

import numpy as np

from parity.measured.fit_types import Fit
from parity.measured.history import History
from parity.measured.numbers import UNSEEN, Measured, agree

PLAIN = 1e-4
"""A factor nearer to 1 than this is no clipping: an eps may be in its formula."""


def global_norms(histories: Mapping[str, History]) -> tuple[float, ...]:
    """Returns the norm of all gradients together, one a step."""
    squares = sum(np.sum(np.square(h.g), axis=1) for h in histories.values())
    return tuple(float(norm) for norm in np.sqrt(squares))


def clip_norm(fits: Mapping[str, Fit], norms: Sequence[float]) -> Measured:
    """Returns the norm that the gradients of all tensors were clipped to.

    Args:
      fits: name -> fit.
      norms: global norms of the recorded gradients, one a step.

    Returns:
      The norm; unseen if the factors are not those of clipping.
    """
    measured = [f for f in fits.values() if f.is_recognised and f.factors]
    if not measured or any(fit.is_stale for fit in measured):
        return UNSEEN
    for fit in measured:
        if not all(agree(a, b) for a, b in zip(fit.factors, measured[0].factors)):
            return UNSEEN
    return threshold(measured[0].factors, norms)


def threshold(factors: Sequence[Measured], norms: Sequence[float]) -> Measured:
    """Returns the norm that clipping by these factors keeps; unseen if it is another.

    Args:
      factors: what multiplied the gradients, one a step.
      norms: of the gradients.
    """
    cut = [f.is_bounded and f.high < 1 - PLAIN for f in factors]
    plain = [f.holds(1.0) for f in factors]
    if sum(cut) < 2 or not all(a or b for a, b in zip(cut, plain)):
        return UNSEEN
    products = [
        Measured(f.value * norm, (f.error + 1e-5 * f.value) * norm)
        for f, norm, is_cut in zip(factors, norms, cut)
        if is_cut
    ]
    first = products[0]
    highest = first.high * (1 + PLAIN)
    below = all(is_cut or norm <= highest for norm, is_cut in zip(norms, cut))
    one = all(agree(first, product) for product in products)
    varied = any(not agree(f, factors[0]) for f in factors)
    return first if one and below and varied else UNSEEN
