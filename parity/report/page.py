"""The page: verdict, first divergence, figures, tables, how to read them, facts."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jaxnn.experiment.files import artifacts
from parity.judging.measure import EXACT, PHASES, Measurement
from parity.report import curves, heat_map, terminal, words
from parity.report import score_section as judge_score
from parity.report.style import STYLE
from parity.report.terminal import EXPLANATION

READING = (
    "Every recorded step is taken again in JAX from the recorded state, so each step "
    "is judged alone and errors do not pile up.",
    "z is the distance between a recorded tensor and its replay over the distance "
    "that rounding alone makes, at least one ulp of the format it was stored in.",
    "Around 1 is rounding; up to {threshold:g} passes, and what must be equal to the "
    "bit is equal or unequal.",
    "Loss and gradients are replayed from the recorded parameters, moments and "
    "parameters from the recorded gradients, so a fault shows where it is made and "
    "does not spread.",
    "“Detects” is the smallest relative error that would have failed: a difference "
    "below it would not have been seen.",
)


def write(
    path: pathlib.Path,
    title: str,
    verdicts: Mapping[str, Mapping[str, Any]],
    measurements: Mapping[str, Sequence[Measurement]],
    diagnosis: Sequence[Mapping[str, Any]] | None,
    order: Sequence[str],
    more: Mapping[str, Any],
    score: Mapping[str, Any] | None = None,
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: of the file.
      title: what was judged.
      verdicts: recording's name -> verdict, as `compare.verdict` returns it; the first
        is the one to judge.
      measurements: recording's name -> of every step.
      diagnosis: {"name", "explanation", "reference", "before", "after", "explained"} of
        each known difference that was tried, best first; None: not looked for.
      order: tensor names in the order in which a step makes them.
      more: facts, name -> a value, a list of lines or a mapping.
      score: of the judge itself, as `mutations.table.summary` has it; None: not
        measured.
    """
    judged, *others = verdicts
    sections = [
        f"<h1>{escape(title)}</h1>",
        _banner(verdicts),
        _divergence(verdicts, diagnosis),
        _recording(judged, verdicts[judged], measurements[judged], order),
        *(_other(name, verdicts[name], measurements[name], order) for name in others),
        _reading(verdicts[judged]["threshold"]),
        judge_score.section(score),
        _facts(more),
    ]
    artifacts.write_text(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>"
        + "\n".join(filter(None, sections))
        + "</body></html>\n",
    )


def first_divergence(
    verdicts: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any] | None:
    """The earliest of all recordings, with the recording's name; None: parity."""
    found = [
        {"recording": name, **v["first_divergence"]}
        for name, v in verdicts.items()
        if v["first_divergence"]
    ]
    return min(found, key=lambda first: first["step"], default=None)


def _banner(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """The verdict in one sentence."""
    first, (verdict, *_) = first_divergence(verdicts), verdicts.values()
    if first is None:
        worst = max(v["max_z"] for v in verdicts.values())
        names = escape(" or ".join(verdicts))
        return (
            f'<p class="verdict parity"><b>✓ Parity.</b> In {verdict["steps"]} steps nothing that {names} computed '
            f"is further than z = {terminal.z(worst)} from its replay; {verdict['threshold']:g} is allowed.</p>"
        )
    name, what = (
        escape(first["recording"]),
        f"{EXPLANATION[first['quantity']]} {_named(first['tensor'])}".strip(),
    )
    how = (
        f"breaks an equality at step {first['step']}: {what}"
        if first["quantity"] in EXACT
        else (
            f"parts from its replay at step {first['step']}: {what}, z = "
            f"{terminal.z(first['z'])}; {verdict['threshold']:g} is allowed"
        )
    )
    return f'<p class="verdict divergence"><b>✗ Divergence.</b> {name} {how}.</p>'


def _named(tensor: str) -> str:
    return f"<code>{escape(tensor)}</code>" if tensor else ""


def _divergence(
    verdicts: Mapping[str, Mapping[str, Any]],
    diagnosis: Sequence[Mapping[str, Any]] | None,
) -> str:
    """Where the two first part, in each recording, and why."""
    rows = [
        _definition(
            f"first in {name}",
            f"{words.place(first['step'], first['tensor'])}, "
            f"{EXPLANATION[first['quantity']]}, z "
            f"{terminal.z(first['z'])}{_rest(first)}",
        )
        for name, verdict in verdicts.items()
        if (first := verdict["first_divergence"])
    ]
    if not rows:
        return ""
    return f"<h2>Where they part</h2><dl>{''.join(rows)}</dl>" + _diagnosis(diagnosis)


def _rest(first: Mapping[str, Any]) -> str:
    """What else is known of a first divergence."""
    known = {"step", "quantity", "tensor", "z"}
    return "".join(
        f"; {escape(str(key)).replace('_', ' ')}: {escape(str(value))}"
        for key, value in first.items()
        if key not in known and value not in (None, "")
    )


def _diagnosis(diagnosis: Sequence[Mapping[str, Any]] | None) -> str:
    if diagnosis is None:
        return ""
    explained = [cause for cause in diagnosis if cause["explained"]]
    if not diagnosis:
        return "<h2>Why</h2><p>No known difference applies to this step.</p>"
    head = "" if explained else "<p>No known difference explains it. The nearest:</p>"
    verbs = itertools.chain(
        ["Explained by"], itertools.repeat("Would also be explained by")
    )
    causes = "".join(
        f"<li>{_cause(verb if explained else 'Not explained by', cause)}</li>"
        for verb, cause in zip(verbs, explained or diagnosis)
    )
    return f"<h2>Why</h2>{head}<ol>{causes}</ol>"


def _cause(verb: str, cause: Mapping[str, Any]) -> str:
    reference = escape(str(cause["reference"] or ""))
    if reference.startswith(("https://", "http://")):
        reference = f'<a href="{reference}">{reference}</a>'
    return (
        f"{verb} <code>{escape(str(cause['name']))}</code>: with it z "
        f"{terminal.z(cause['before'])} becomes "
        f"{terminal.z(cause['after'])}.<br>{escape(str(cause['explanation']))}"
        + (f" <small>{reference}</small>" if reference else "")
    )


def _recording(
    name: str,
    verdict: Mapping[str, Any],
    measurements: Sequence[Measurement],
    order: Sequence[str],
) -> str:
    """Both figures and the table of one recording."""
    threshold = verdict["threshold"]
    closely = verdict["steps_measured_closely"]
    note = (
        f" {closely} of {verdict['steps']} steps were measured again with more draws "
        "of noise."
        if closely
        else ""
    )
    name = escape(name)
    return (
        f"<h2>{name}: worst z of each quantity over the "
        f"steps</h2>{curves.figure(measurements, threshold)}<h2>{name}: z of every "
        "tensor at every "
        f"step</h2>{heat_map.figure(measurements, threshold, order)}<h2>{name}: "
        f"quantities</h2>{_table(verdict['quantities'], threshold)}<p "
        f"class=soft>{note}</p>"
    )


def _other(
    name: str,
    verdict: Mapping[str, Any],
    measurements: Sequence[Measurement],
    order: Sequence[str],
) -> str:
    """A recording that is not the one to judge, shut unless it diverges."""
    is_open = " open" if verdict["first_divergence"] else ""
    return (
        f'<details class="other"{is_open}><summary><b>{escape(name)}</b>: the same of its recording, worst z '
        f"{terminal.z(verdict['max_z'])}</summary>{_recording(name, verdict, measurements, order)}</details>"
    )


def _table(quantities: Mapping[str, Mapping[str, Any]], threshold: float) -> str:
    rows = "".join(
        _table_row(quantity, quantities[quantity], threshold)
        for quantity in PHASES
        if quantities.get(quantity, {}).get("compared")
    )
    headers = (
        '<th>quantity</th><th class="number">compared</th><th class="number">worst '
        'z</th><th>at</th><th class="number">detects, median</th><th '
        'class="number">detects, worst</th>'
    )
    return (
        "<div "
        f'class="scroll"><table><thead><tr>{headers}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _table_row(quantity: str, row: Mapping[str, Any], threshold: float) -> str:
    failed = row["max_z"] > threshold
    numbers = [
        str(row["compared"]),
        ("✗ " if failed else "") + words.worst(quantity, row["max_z"]),
    ]
    detects = (
        ["any", "any"]
        if quantity in EXACT
        else [f"{row[kind]:.1e}" for kind in ("detectable_median", "detectable_worst")]
    )
    compared, worst, *detects = (
        f'<td class="number">{text}</td>' for text in (*numbers, *detects)
    )
    where = words.place(row["step"], row["tensor"]) if row["max_z"] else ""
    return (
        f'<tr{" class=bad" if failed else ""}><th scope="row">{EXPLANATION[quantity]}</th>{compared}{worst}'
        f"<td>{where}</td>{''.join(detects)}</tr>"
    )


def _reading(threshold: float) -> str:
    sentences = "".join(
        f"<li>{escape(sentence.format(threshold=threshold))}</li>"
        for sentence in READING
    )
    return f"<h2>How to read this</h2><ul>{sentences}</ul>"


def _facts(more: Mapping[str, Any]) -> str:
    return f"<h2>Facts</h2><dl>{''.join(_definition(name, _fact(value)) for name, value in more.items())}</dl>"


def _definition(name: str, value: str) -> str:
    return f"<dt>{escape(str(name))}</dt><dd>{value}</dd>"


def _fact(value: Any) -> str:
    """A value, a list of lines or a mapping, as HTML."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{escape(str(key))} {_fact(entry)}" for key, entry in value.items()
        )
    if isinstance(value, list | tuple):
        lines = escape("\n".join(map(str, value)))
        return (
            f"<details><summary>{len(value)} "
            f"lines</summary><pre>{lines}</pre></details>"
        )
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
