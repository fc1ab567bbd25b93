"""Section of the page on the judge itself: what it was shown to catch."""

from collections.abc import Mapping
from html import escape
from typing import Any

from parity.report.html import element

HEADERS = ("fault", "planted", "caught", "located", "explained", "below detection")


def section(score: Mapping[str, Any] | None) -> str:
    """Returns a sentence and a folded table; nothing if no score was measured.

    Args:
      score: published score, as `mutations.table.summary` makes it.
    """
    if score is None:
        return ""
    commit = escape(score["commit"])
    counts = escape(score["sentence"])
    head = element("tr", *(element("th", name) for name in HEADERS))
    table = element(
        "table",
        element("thead", head),
        element("tbody", *(_row(row) for row in score["faults"])),
    )
    return (
        element("h2", "What a green verdict is worth")
        + element(
            "p",
            "Known faults were planted in real runs, one at a time "
            f"(commit {commit}): {counts}.",
        )
        + element(
            "details",
            element("summary", f"{len(score['faults'])} faults"),
            element("div", table, class_="scroll"),
        )
    )


def _row(row: Mapping[str, Any]) -> str:
    counts = [
        element("td", f"{row[word]} of {row['detectable']}", class_="number")
        for word in ("caught", "located", "explained")
    ]
    below = ", ".join(f"{where} (z {z:.2g})" for where, z in row["below"].items())
    return element(
        "tr",
        element("th", element("code", escape(row["name"])), scope="row"),
        element("td", str(row["planted"]), class_="number"),
        *counts,
        element("td", escape(below)),
    )
