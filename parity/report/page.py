"""report.html: the whole judgement on one page that needs no network and no script."""

import pathlib
from collections.abc import Mapping
from html import escape
from typing import Any

from jaxnn.experiment.files import artifacts
from parity.judging.measure import spell_z
from parity.judging.recording import Judgement
from parity.report import curves, heat_map, score_section, why_section
from parity.report.html import element
from parity.report.quantity_table import quantity_table

STYLE = pathlib.Path(__file__).with_name("page.css")

READING = (
    "Every recorded step is taken again in JAX from the recorded state, so each step "
    "is judged alone and errors do not pile up.",
    "z is the distance between a recorded tensor and its replay over the distance "
    "that rounding alone makes, at least one ulp of the dtype it was stored in.",
    "Around 1 is rounding; up to {threshold:g} passes, and what must be equal to the "
    "bit is equal or unequal.",
    "Loss and gradients are replayed from the recorded parameters, moments and "
    "parameters from the recorded gradients, so a fault shows where it is made and "
    "does not spread.",
    "“Detects” is the smallest relative error that would have failed: a difference "
    "below it would not have been seen.",
)
"""How to read the page, a sentence each."""


def write(
    path: pathlib.Path,
    title: str,
    judgements: Mapping[str, Judgement],
    facts: Mapping[str, Any],
    score: Mapping[str, Any] | None = None,
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: file to write.
      title: what was judged.
      judgements: recording's name -> judgement; the first is the one to judge.
      facts: name -> a value, a list of lines or a mapping.
      score: published score of the judge itself, as `mutations.table.summary` makes
        it; None if not measured.
    """
    judged, *others = judgements
    sections = [
        element("h1", escape(title)),
        _banner(judgements),
        why_section.section(judgements),
        _recording(judged, judgements[judged]),
        *(_other(name, judgements[name]) for name in others),
        _reading(judgements[judged].verdict.threshold),
        score_section.section(score),
        _facts(facts),
    ]
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{STYLE.read_text()}</style>"
    )
    body = "\n".join(filter(None, sections))
    artifacts.write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n'
        f"<body>{body}</body></html>\n",
    )


def _banner(judgements: Mapping[str, Judgement]) -> str:
    """The verdict in one sentence."""
    name = why_section.first_diverging(judgements)
    if name is None:
        return _parity_banner(judgements)
    verdict = judgements[name].verdict
    first = verdict.first_divergence
    assert first, "a recording that diverges has a first divergence"
    tensor = " " + element("code", escape(first.tensor)) if first.tensor else ""
    what = f"{first.definition.label}{tensor}"
    if first.definition.is_exact:
        how = f"breaks an equality at step {first.step}: {what}"
    else:
        how = (
            f"parts from its replay at step {first.step}: {what}, z = "
            f"{spell_z(first.z)}; {verdict.threshold:g} is allowed"
        )
    mark = element("b", "✗ Divergence.")
    sentence = f"{mark} {escape(name)} {how}."
    return element("p", sentence, class_="verdict divergence")


def _parity_banner(judgements: Mapping[str, Judgement]) -> str:
    verdict, *_ = (judged.verdict for judged in judgements.values())
    worst = max(judged.verdict.max_z for judged in judgements.values())
    names = escape(" or ".join(judgements))
    mark = element("b", "✓ Parity.")
    sentence = (
        f"{mark} In {verdict.steps} steps nothing that {names} computed is further "
        f"than z = {spell_z(worst)} from its replay; {verdict.threshold:g} is allowed."
    )
    return element("p", sentence, class_="verdict parity")


def _recording(name: str, judged: Judgement) -> str:
    """Both figures and the table of one recording."""
    verdict = judged.verdict
    closely = verdict.steps_measured_closely
    note = (
        f"{closely} of {verdict.steps} steps were measured again with more draws of "
        "noise."
        if closely
        else ""
    )
    threshold = verdict.threshold
    name = escape(name)
    return "".join(
        (
            element("h2", f"{name}: worst z of each quantity over the steps"),
            curves.figure(judged.measurements, threshold),
            element("h2", f"{name}: z of every tensor at every step"),
            heat_map.figure(judged.measurements, threshold, judged.order),
            element("h2", f"{name}: quantities"),
            quantity_table(verdict),
            element("p", note, class_="soft"),
        )
    )


def _other(name: str, judged: Judgement) -> str:
    """A recording that is not the one to judge, folded unless it diverges."""
    worst = spell_z(judged.verdict.max_z)
    label = element("b", escape(name))
    summary = f"{label}: the same of its recording, worst z {worst}"
    return element(
        "details",
        element("summary", summary),
        _recording(name, judged),
        class_="other",
        open=not judged.verdict.is_parity,
    )


def _reading(threshold: float) -> str:
    sentences = [
        element("li", escape(sentence.format(threshold=threshold)))
        for sentence in READING
    ]
    return element("h2", "How to read this") + element("ul", *sentences)


def _facts(facts: Mapping[str, Any]) -> str:
    entries = [
        element("dt", escape(name)) + element("dd", _fact(value))
        for name, value in facts.items()
    ]
    return element("h2", "Facts") + element("dl", *entries)


def _fact(value: Any) -> str:
    """A value, a list of lines or a mapping, as HTML."""
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(k))} {_fact(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        lines = element("pre", escape("\n".join(map(str, value))))
        return element("details", element("summary", f"{len(value)} lines"), lines)
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
