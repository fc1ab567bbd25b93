"""How a recorded optimizer differs from one's own, in sentences with figures.

Something is said only where the intervals of both measurements are apart.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from parity.measured import form as forms
from parity.measured.compare_steps import counts_agree, factor_findings, rate_findings
from parity.measured.difference import Difference, Finding, gathered
from parity.measured.fit_types import EITHER, RATE_INSIDE, Fit
from parity.measured.numbers import UNSEEN, Measured, agree

SAME_FAMILY = (forms.ADAM, forms.ADAMW)
"""They differ in the kind of decay, which is said by itself."""


def differences(
    recorded: Mapping[str, Fit], own: Mapping[str, Fit]
) -> list[Difference]:
    """Returns how a recording differs from one's own optimizer.

    Args:
      recorded: measurement of the recording.
      own: measurement of one's own optimizer, run on the recorded gradients.
    """
    names = [name for name in recorded if name in own]
    findings = [
        (name, finding)
        for name in names
        for finding in _findings(recorded[name], own[name])
    ]
    return gathered(findings, len(names))


def _findings(recorded: Fit, own: Fit) -> Iterator[Finding]:
    if not own.is_recognised:
        return
    if forms.STILL in (recorded.family, own.family):
        yield from _still(recorded, own)
    elif not recorded.is_recognised:
        yield from _unrecognised(recorded, own)
    elif recorded.is_stale != own.is_stale:
        late, other = ("", "yours") if recorded.is_stale else ("your ", "the recorded")
        text = f"{late}updates follow the gradient of the step before, {other} do not"
        yield Finding("stale gradient", text)
    elif _are_kin(recorded, own):
        yield from _numbers(recorded, own)
    else:
        text = f"the update is that of {recorded.family}, yours that of {own.family}"
        yield Finding("family", text)


def _still(recorded: Fit, own: Fit) -> Iterator[Finding]:
    if recorded.family == own.family:
        return
    if recorded.family == forms.STILL:
        yield Finding("still", "it never moves, and does under your optimizer")
    else:
        yield Finding("still", "it moves, and never does under your optimizer")


def _unrecognised(recorded: Fit, own: Fit) -> Iterator[Finding]:
    # Too small a tensor, or an update that rounding hides, says nothing at all.
    if recorded.quality.freedom <= 0 or recorded.quality.is_good:
        return
    rms = recorded.quality.rms
    text = f"the recorded update was not explained, yours is {own.family}"
    yield Finding("unrecognised", text, Measured(rms, rms), UNSEEN)


def _are_kin(recorded: Fit, own: Fit) -> bool:
    if recorded.family in SAME_FAMILY and own.family in SAME_FAMILY:
        return True
    mine = {own.family, *own.alternatives}
    return bool({recorded.family, *recorded.alternatives} & mine)


def _numbers(recorded: Fit, own: Fit) -> Iterator[Finding]:
    if recorded.still and not own.still:
        part = f"{recorded.still} of {recorded.size} entries never move, yours do"
        yield Finding("still", part)
    yield from _bounds(recorded, own)
    yield from _betas(recorded, own)
    if counts_agree(recorded, own):
        yield from _eps(recorded, own)
    if not _is_same_shrinking(recorded, own):
        yield from _decay(recorded, own)
    if _forms_differ(recorded, own):
        yield _form(recorded, own)
        return
    yield from _dampening(recorded, own)
    yield from factor_findings(recorded, own)
    yield from rate_findings(recorded, own)


def _bounds(recorded: Fit, own: Fit) -> Iterator[Finding]:
    a, b = recorded.value_bound, own.value_bound
    if a.is_seen and b.is_seen and not agree(a, b):
        text = "each entry of the gradients was clipped to {a}, under yours to {b}"
        yield Finding("clip by value", text, a, b)
    elif a.is_seen and not b.is_seen:
        text = "each entry of the gradients was clipped to {a}, yours were not"
        yield Finding("clip by value", text, a, a)
    elif b.is_seen and not a.is_seen:
        text = "each entry of your gradients is clipped to {b}, the recorded are not"
        yield Finding("clip by value", text, b, b)


def _betas(recorded: Fit, own: Fit) -> Iterator[Finding]:
    for kind, a, b in (
        ("first moment", recorded.b1, own.b1),
        ("second moment", recorded.b2, own.b2),
    ):
        if not agree(a, b):
            text = f"{kind} decays by {{a}}, under your optimizer by {{b}}"
            yield Finding(f"{kind} decay", text, a, b)
    a, b = recorded.complement, own.complement
    if agree(recorded.b2, own.b2) and not agree(a, b):
        yield _complement(a, b)


def _complement(a: Measured, b: Measured) -> Finding:
    for one, other, whose in ((a, b, "betas are"), (b, a, "your betas are")):
        beta = round(1 - other.value, 6)
        if one.holds(1 - float(np.float32(beta))) and other.holds(1 - beta):
            text = f"{whose} float32: 1 - b2 is {{a}}, under your optimizer {{b}}"
            return Finding("float32 betas", text, a, b)
    text = "squared gradients are multiplied by {a}, under your optimizer by {b}"
    return Finding("second moment gain", text, a, b)


def _eps(recorded: Fit, own: Fit) -> Iterator[Finding]:
    a, b = recorded.eps, own.eps
    places = (recorded.eps_place, own.eps_place)
    if all(places) and places[0] != places[1]:
        mine, other = _place(places[0]), _place(places[1])
        text = f"eps {{a}} stands {mine}, yours ({{b}}) {other}"
        yield Finding("eps place", text, a, b)
    elif recorded.form.place == own.form.place and not agree(a, b):
        yield Finding("eps", "eps is {a}, yours {b}", a, b)


def _place(place: str) -> str:
    return f"{place} the root" if "," not in place else place.replace(",", " the root,")


def _decay(recorded: Fit, own: Fit) -> Iterator[Finding]:
    a, b = recorded.decay, own.decay
    kinds = {recorded.decay_kind, own.decay_kind}
    if not agree(a, b):
        yield Finding("decay", _decay_text(recorded, own), a, b)
    elif len(kinds) == 2 and not kinds & {"", EITHER}:
        text = f"decay {{a}} is {recorded.decay_kind}, yours {own.decay_kind}"
        yield Finding("decay kind", text, a, b)


def _is_same_shrinking(recorded: Fit, own: Fit) -> bool:
    """Returns True if SGD's weights shrink alike, whatever the gradient's factor.

    Its decay is known by the rate alone, which that factor hides.
    """
    pairs = list(zip(recorded.raw.shrinks, own.raw.shrinks))
    is_sgd = recorded.family == forms.SGD == own.family
    return is_sgd and all(agree(a, b) for a, b in pairs)


def _decay_text(recorded: Fit, own: Fit) -> str:
    a, b = recorded.decay, own.decay
    kinds = (recorded.decay_kind, own.decay_kind)
    if not b.is_seen:
        return f"{kinds[0]} decay is {{a}}, your optimizer's {{b}}: it has none"
    if not a.is_seen:
        return f"decay is {{a}}: there is none, your optimizer's is {{b}}, {kinds[1]}"
    return f"decay is {{a}}, {kinds[0]}, your optimizer's {{b}}, {kinds[1]}"


def _forms_differ(recorded: Fit, own: Fit) -> bool:
    pair = (recorded.momentum_form, own.momentum_form)
    return all(pair) and pair[0] != pair[1]


def _form(recorded: Fit, own: Fit) -> Finding:
    names = {
        form: "momentum with the rate inside" if form == RATE_INSIDE else f"{form}"
        for form in (recorded.momentum_form, own.momentum_form)
    }
    mine, other = names[recorded.momentum_form], names[own.momentum_form]
    return Finding("momentum form", f"the momentum is: {mine}; yours: {other}")


def _dampening(recorded: Fit, own: Fit) -> Iterator[Finding]:
    a, b = recorded.dampening, own.dampening
    if not agree(a, b):
        yield Finding("dampening", "dampening is {a}, yours {b}", a, b)
