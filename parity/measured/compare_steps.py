"""Differences that may come and go with the steps: gradient factors and rates."""

from collections.abc import Iterator, Sequence

import numpy as np

from parity.measured import corrections
from parity.measured import form as forms
from parity.measured.clip_findings import Pairs, clip_finding
from parity.measured.clipping import threshold
from parity.measured.difference import Finding, steps_text
from parity.measured.fit_types import Fit
from parity.measured.numbers import UNSEEN, Measured, agree, ratio


def factor_findings(recorded: Fit, own: Fit) -> Iterator[Finding]:
    """Says what multiplied the gradients before the optimizer."""
    pairs = _pairs(recorded, _factors(recorded, own), own, _factors(own, recorded))
    apart = _apart(pairs)
    if not apart:
        return
    zero = [pair for pair in apart if pair[0] in recorded.zero_steps]
    if zero:
        counts = [count for count, *_ in zero]
        text = f"the optimizer was fed zero gradients at {steps_text(counts)}"
        yield Finding("zero gradients", text)
    rest = [pair for pair in apart if pair not in zero]
    clip = clip_finding(recorded, own, rest) if rest else None
    if clip:
        yield clip
    elif rest:
        yield from _scaled(rest, len(rest) == len(pairs) - len(zero))


def _factors(fit: Fit, other: Fit) -> Sequence[Measured]:
    """Returns what tells the factor best: the first moment's gains if both have them.

    They need no interpretation of the momentum's form, which may be unknown.
    """
    unknown = not fit.momentum_form or not other.momentum_form
    both = fit.raw.gains and other.raw.gains
    is_linear = fit.family in (forms.MOMENTUM, forms.NESTEROV)
    usable = both and unknown and is_linear and agree(fit.b1, other.b1)
    return fit.raw.gains if usable else fit.factors


def _scaled(apart: Pairs, everywhere: bool) -> Iterator[Finding]:
    shares = [ratio(a, b) for _, a, b in apart]
    alike = all(agree(share, shares[0]) for share in shares)
    share = min(shares, key=lambda share: share.error)
    if everywhere and alike and len(apart) > 1:
        text = (
            "gradients were multiplied by {a} at every step before the optimizer saw "
            "them, against yours"
        )
        yield Finding("gradient factor", text, share)
    elif alike:
        counts = [count for count, *_ in apart]
        text = f"the gradient at {steps_text(counts)} was {{a}} of yours"
        yield Finding("gradient factor", text, share)
    else:
        yield _varied("gradient factor", "the gradient was", apart, shares)


def _varied(kind: str, start: str, apart: Pairs, shares: list[Measured]) -> Finding:
    counts = [count for count, *_ in apart]
    values = [share.value for share in shares if share.is_bounded] or [float("nan")]
    text = (
        f"{start} {min(values):.3g} to {max(values):.3g} of yours at "
        f"{steps_text(counts)}"
    )
    # The share that is farthest from one stands for all.
    farthest = max(shares, key=lambda share: abs(share.value - 1))
    return Finding(kind, text, farthest)


def rate_findings(recorded: Fit, own: Fit) -> Iterator[Finding]:
    """Says where counts of the bias correction, or rates, differ."""
    rates = recorded.rates
    a, b = recorded.correction, own.correction
    if a is not None and b is not None:
        offset = _offset(recorded, own)
        if offset != b.offset:
            yield _count(recorded, offset, b.offset)
            rates = _under(recorded, offset)
        elif offset != a.offset:
            rates = _under(recorded, offset)
    pairs = _pairs(recorded, rates, own, own.rates)
    apart = _apart(pairs)
    if recorded.family == forms.SGD and apart:
        yield from _of_sgd(recorded, pairs, apart)
    elif apart:
        yield from _rates(recorded, apart, len(apart) == len(pairs))


def counts_agree(recorded: Fit, own: Fit) -> bool:
    """Returns True if both bias corrections count alike, so that their eps compare."""
    if recorded.correction is None or own.correction is None:
        return True
    offset = _offset(recorded, own)
    return recorded.correction.offset == own.correction.offset == offset


def _rates(recorded: Fit, apart: Pairs, everywhere: bool) -> Iterator[Finding]:
    counts = [count for count, *_ in apart]
    where = "every step" if everywhere and len(apart) > 1 else steps_text(counts)
    shares = [ratio(a, b) for _, a, b in apart]
    alike = all(agree(share, shares[0]) for share in shares)
    share = min(shares, key=lambda share: share.error)
    if alike and _one(apart):
        text = f"rate is {{a}} where yours is {{b}} at {where}"
        yield Finding("rate", text, *apart[0][1:])
    elif alike:
        yield Finding("rate", f"rate is {{a}} of yours at {where}", share)
    else:
        yield _varied("rate", "the rate was", apart, shares)


SGD_KIND = "rate or gradient factor"


def _of_sgd(recorded: Fit, pairs: Pairs, apart: Pairs) -> Iterator[Finding]:
    """Says what SGD shows: the product of rate and gradient factor."""
    counts = [count for count, *_ in apart]
    where = "every step" if 1 < len(apart) == len(pairs) else steps_text(counts)
    if set(counts) <= set(recorded.zero_steps):
        yield Finding("zero gradients", f"nothing was subtracted at {where}")
        return
    shares = [ratio(a, b) for _, a, b in apart]
    norms = dict(zip(recorded.counts, recorded.norms))
    norm = threshold(
        [ratio(a, b) for _, a, b in pairs], [norms[count] for count, *_ in pairs]
    )
    if norm.is_seen:
        text = "gradients were clipped to a global norm of {a}, yours were not"
        yield Finding("clipping", text, norm)
    elif all(agree(share, shares[0]) for share in shares):
        text = (
            f"updates are {{a}} of yours at {where}: by the rate or by a factor on the "
            "gradients, which SGD does not tell apart"
        )
        yield Finding(SGD_KIND, text, min(shares, key=lambda share: share.error))
    else:
        yield _varied(SGD_KIND, "the update was", apart, shares)


def _one(apart: Pairs) -> bool:
    """Returns True if all steps have the same two rates."""
    _, a, b = apart[0]
    return all(agree(one, a) and agree(other, b) for _, one, other in apart)


def _offset(recorded: Fit, own: Fit) -> int | None:
    """Returns the count's offset in the recording, by the other's rates if need be."""
    a, b = recorded.correction, own.correction
    assert a is not None
    assert b is not None
    tried = [b.offset, a.offset, *corrections.offsets(recorded.counts)]
    for offset in tried:
        pairs = _pairs(recorded, _under(recorded, offset), own, own.rates)
        if pairs and not _apart(pairs):
            return offset
    return a.offset if a.is_measured and b.is_measured else b.offset


def _under(fit: Fit, offset: int | None) -> tuple[Measured, ...]:
    """Returns the rates that updates show if their count had another offset."""
    assert fit.correction is not None
    if offset == fit.correction.offset:
        return fit.rates
    change = _size(fit, fit.correction.offset) / _size(fit, offset)
    return tuple(rate.times(float(c)) for rate, c in zip(fit.rates, change))


def _size(fit: Fit, offset: int | None) -> np.ndarray:
    """[T] what the bias correction multiplies the update by, eps aside."""
    first = corrections.factors(fit.b1.value, fit.counts, offset)
    if fit.family == forms.ADAMAX:
        return 1 / first
    second = corrections.factors(1 - fit.complement.value, fit.counts, offset)
    return np.sqrt(second) / first


def _count(recorded: Fit, offset: int | None, own: int | None) -> Finding:
    first = recorded.counts[0] + 1
    if offset is None:
        text = "moments are not corrected for their start at 0, yours are"
    elif own is None:
        text = "moments are corrected for their start at 0, yours are not"
    else:
        text = (
            f"update {first} was corrected as update {first + offset} "
            f"(bias-correction count {first + offset} at the first step, "
            f"yours {first + own})"
        )
    return Finding("bias-correction count", text)


def _pairs(
    recorded: Fit, numbers: Sequence[Measured], own: Fit, others: Sequence[Measured]
) -> Pairs:
    """Returns both numbers of the steps at which both are bounded."""
    mine = dict(zip(recorded.counts, numbers))
    theirs = dict(zip(own.counts, others))
    pairs = [(count, a, theirs.get(count, UNSEEN)) for count, a in mine.items()]
    return [pair for pair in pairs if pair[1].is_bounded and pair[2].is_bounded]


def _apart(pairs: Pairs) -> Pairs:
    return [pair for pair in pairs if not agree(pair[1], pair[2])]
