"""A lab's page: one HTML file that needs no network and no script."""

import pathlib
from collections.abc import Mapping, Sequence
from html import escape

from jaxnn.experiment.files import artifacts
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.report.html import element
from parity.report.page import STYLE

OWN_STYLE = pathlib.Path(__file__).with_name("labs.css")


def write(
    path: pathlib.Path,
    lab: Lab,
    findings: Findings,
    is_reduced: bool,
    facts: Mapping[str, str],
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: file to write.
      lab: what it is about.
      findings: what was found.
      is_reduced: True if it ran at reduced size.
      facts: name -> value, of the machine and the run; several lines are folded.
    """
    title = escape(lab.title)
    size = "At reduced size, which shows less." if is_reduced else ""
    body = (
        element("h1", title),
        element("p", escape(lab.says)),
        element("p", size, class_="soft") if size else "",
        element("h2", "Claims"),
        _claims(findings.claims, is_reduced),
        *findings.sections,
        element("h2", "Facts"),
        _facts(facts),
    )
    style = STYLE.read_text() + OWN_STYLE.read_text()
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{style}</style>"
    )
    artifacts.write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n'
        f"<body>{''.join(body)}</body></html>\n",
    )


def judged(claims: Sequence[Claim], is_reduced: bool) -> list[Claim]:
    """Returns the claims that a lab of this size must keep."""
    return [claim for claim in claims if not (is_reduced and claim.of_full_size)]


def _claims(claims: Sequence[Claim], is_reduced: bool) -> str:
    held = judged(claims, is_reduced)
    return element("ul", *(_claim(c, c in held) for c in claims), class_="claims")


def _claim(claim: Claim, is_judged: bool) -> str:
    mark = ("✓" if claim.is_met else "✗ not met:") if is_judged else "full size only:"
    kind = ("parity" if claim.is_met else "divergence") if is_judged else "skipped"
    figures = element("small", escape(claim.figures))
    text = f"{element('b', mark)} {escape(claim.text)}<br/>{figures}"
    return element("li", text, class_=kind)


def _facts(facts: Mapping[str, str]) -> str:
    entries = [element("dt", escape(k)) + element("dd", _fact(facts[k])) for k in facts]
    return element("dl", *entries)


def _fact(value: str) -> str:
    lines = value.splitlines()
    if len(lines) < 2:
        return escape(value)
    summary = element("summary", f"{len(lines)} lines")
    return element("details", summary, element("pre", escape(value)))
