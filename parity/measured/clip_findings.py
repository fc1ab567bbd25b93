"""How two optimizers clip gradients by a norm, in a sentence."""

from parity.measured.clipping import EPS, FIXED, GLOBAL, GLOBAL_EPS, TENSOR
from parity.measured.difference import Finding
from parity.measured.fit_types import Fit
from parity.measured.numbers import Measured, agree, ratio

Pairs = list[tuple[int, Measured, Measured]]
"""Step's count, the recording's number, the other's."""

KINDS = {TENSOR: "clip by tensor", FIXED: "clip normalizes"}
"""Form of the recorded clipping -> kind of the difference, where the other has none."""
SHARP = 0.3
"""Part of a predicted distance that its error may be."""


def clip_finding(recorded: Fit, own: Fit, apart: Pairs) -> Finding | None:
    """Returns what clipping says of gradient factors that are apart; perhaps nothing.

    Args:
      recorded: fit of the recording.
      own: fit of the other.
      apart: both factors, where they differ.
    """
    if recorded.clip_form and own.clip_form:
        return _of_both(recorded, own, apart)
    if recorded.clip_form and _is_plain(own):
        # The factors of tensors by their own norms would need a sentence each.
        span = "" if recorded.clip_form == TENSOR else f" ({_span(apart)})"
        text = f"gradients were clipped to {recorded.clip_form} of {{a}}{span}, yours "
        text += "were not"
        kind = KINDS.get(recorded.clip_form, "clipping")
        return Finding(kind, text, recorded.clip_norm)
    if own.clip_form and _is_plain(recorded):
        text = f"gradients were not clipped, yours are to {own.clip_form} of {{b}}"
        return Finding("clip missing", text, own.clip_norm, own.clip_norm)
    return None


def _span(apart: Pairs) -> str:
    values = [a.value for _, a, _ in apart]
    return f"factors {min(values):.3g} to {max(values):.3g}"


def _is_plain(fit: Fit) -> bool:
    return all(factor.holds(1.0) for factor in fit.factors)


def _of_both(recorded: Fit, own: Fit, apart: Pairs) -> Finding | None:
    a, b = recorded.clip_norm, own.clip_norm
    forms = recorded.clip_form, own.clip_form
    if _differ_in_eps(recorded, own, apart):
        text = f"the norm that gradients are clipped by is off by {EPS:g} from yours"
        return Finding("clip eps", text)
    if forms[0] != forms[1] and {GLOBAL, GLOBAL_EPS} != set(forms):
        text = f"gradients were clipped to {forms[0]} of {{a}}, yours to {forms[1]} of"
        return Finding(KINDS.get(forms[0], "clipping"), text + " {b}", a, b)
    if not agree(a, b):
        text = f"gradients were clipped to {forms[0]} of {{a}}, yours to one of {{b}}"
        return Finding("clip norm", text, a, b)
    return None


def _differ_in_eps(recorded: Fit, own: Fit, apart: Pairs) -> bool:
    """Returns True if all factors differ as norm / (norm + eps) says, either way."""
    norms = dict(zip(recorded.counts, recorded.norms))
    for sign in (1, -1):
        expected = [(norms[n] / (norms[n] + EPS)) ** sign for n, *_ in apart]
        shares = [ratio(a, b) for _, a, b in apart]
        if all(
            share.holds(value) and share.error <= SHARP * abs(1 - value)
            for share, value in zip(shares, expected)
        ):
            return True
    return False
