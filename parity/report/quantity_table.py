"""Table of the page: the worst z of each quantity, and what would have failed."""

from html import escape

from parity.judging.measure import spell_worst
from parity.judging.verdict import Summary, Verdict
from parity.quantities import QUANTITIES
from parity.report.html import element

HEADERS = (
    ("quantity", ""),
    ("compared", "number"),
    ("worst z", "number"),
    ("at", ""),
    ("detects, median", "number"),
    ("detects, worst", "number"),
)
"""(text, class) of each column."""


def quantity_table(verdict: Verdict) -> str:
    """Returns the table of one recording, a row for each quantity that was compared."""
    head = [element("th", text, class_=kind or False) for text, kind in HEADERS]
    rows = [
        _row(quantity, summary, verdict.threshold)
        for quantity, summary in verdict.quantities.items()
    ]
    table = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *rows),
    )
    return element("div", table, class_="scroll")


def place(step: int, tensor: str) -> str:
    """Returns a place in a recording as HTML."""
    return (
        f"step {step} {element('code', escape(tensor))}" if tensor else f"step {step}"
    )


def _row(quantity: str, summary: Summary, threshold: float) -> str:
    worst = summary.worst
    fails = worst.z > threshold
    mark = "✗ " if fails else ""
    if QUANTITIES[quantity].is_exact:
        detects = ("any", "any")
    else:
        detects = (
            f"{summary.detectable_median:.1e}",
            f"{summary.detectable_worst:.1e}",
        )
    where = place(worst.step, worst.tensor) if worst.z else ""
    return element(
        "tr",
        element("th", QUANTITIES[quantity].label, scope="row"),
        _number(str(summary.compared)),
        _number(mark + spell_worst(quantity, worst.z)),
        element("td", where),
        *map(_number, detects),
        class_="bad" if fails else False,
    )


def _number(text: str) -> str:
    return element("td", text, class_="number")
