"""Section of the page on a divergence: where the recordings part, and why."""

from collections.abc import Mapping, Sequence
from html import escape

from parity.judging.explanation import Explanation, as_likely
from parity.judging.measure import spell_z
from parity.judging.recording import Judgement
from parity.report.html import element
from parity.report.quantity_table import place


def first_diverging(judgements: Mapping[str, Judgement]) -> str | None:
    """Returns the recording that diverges at the earliest step; None at parity."""
    steps = {
        name: judged.verdict.first_divergence.step
        for name, judged in judgements.items()
        if judged.verdict.first_divergence
    }
    return min(steps, key=lambda name: steps[name], default=None)


def section(judgements: Mapping[str, Judgement]) -> str:
    """Returns the section; nothing at parity."""
    first = first_diverging(judgements)
    if first is None:
        return ""
    entries = [
        element("dt", f"first in {escape(name)}") + element("dd", _where(name, judged))
        for name, judged in judgements.items()
        if not judged.verdict.is_parity
    ]
    where = element("h2", "Where they part") + element("dl", *entries)
    judged = judgements[first]
    figures = [element("p", escape(line)) for line in judged.figures]
    return where + _why(judged.explanations) + "".join(figures)


def _where(name: str, judged: Judgement) -> str:
    first = judged.verdict.first_divergence
    assert first, "a recording that diverges has a first divergence"
    opinion = f"; {escape(judged.vote.sentence(name))}" if judged.vote else ""
    gap = f": {escape(first.gap)}" if first.gap else ""
    return (
        f"{place(first.step, first.tensor)}, {first.definition.label}, "
        f"z {spell_z(first.z)}{gap}{opinion}"
    )


def _why(explanations: Sequence[Explanation] | None) -> str:
    if explanations is None:
        return ""
    heading = element("h2", "Why")
    if not explanations:
        return heading + element("p", "No known difference explains it, or comes near.")
    measured = [e for e in explanations if e.is_measured]
    if measured:
        return heading + element("ol", *map(_measured_cause, measured))
    explaining = [e for e in explanations if e.explains]
    if not explaining:
        head = element("p", "No known difference explains it. The nearest:")
        causes = [_cause("Not explained by", e) for e in explanations]
        return heading + head + element("ol", *causes)
    best, *others = explaining
    causes = [_cause(_verb(best, other), other) for other in others]
    return heading + element("ol", _cause("Explained by", best), *causes)


def _verb(best: Explanation, other: Explanation) -> str:
    if as_likely(best, other):
        return "Explained as well, which this recording cannot tell apart, by"
    return "Would also, less well, be explained by"


def _measured_cause(explanation: Explanation) -> str:
    verb = "Explained by" if explanation.explains else "Part of it is"
    name = element("code", escape(explanation.label))
    text = escape(explanation.text)
    return element("li", f"{verb} {name}: {text}.", _reference(explanation.reference))


def _cause(verb: str, explanation: Explanation) -> str:
    name = element("code", escape(explanation.label))
    change = (
        f"with it z {spell_z(explanation.before)} becomes {spell_z(explanation.after)}"
    )
    text = escape(explanation.text)
    reference = _reference(explanation.reference)
    return element("li", f"{verb} {name}: {change}.", element("br"), text, reference)


def _reference(reference: str) -> str:
    if not reference:
        return ""
    text = escape(reference)
    if reference.startswith(("https://", "http://")):
        text = element("a", text, href=reference)
    return " " + element("small", text)
