"""Tables of figures, as HTML."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from parity.report.html import element


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Returns a table.

    Args:
      head: names of the columns.
      rows: cells of each row.
      texts: the first so many columns hold text, the others figures.
    """
    cells = [_cells(head, "th", texts)]
    body = [_cells(row, "td", texts) for row in rows]
    whole = element("table", element("thead", *cells), element("tbody", *body))
    return element("div", whole, class_="scroll")


def titled(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1
) -> str:
    """Returns a table under a heading; other arguments as those of `table`."""
    return element("h2", escape(title)) + table(head, rows, texts)


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Returns mean ± standard deviation of some runs; "diverged" if one has none."""
    if np.isnan(values).any():
        return "diverged"
    mean = number(float(values.mean()), digits)
    if len(values) == 1:
        return mean
    return f"{mean} ± {number(float(values.std(ddof=1)), 2)}"


def number(value: float, digits: int = 3) -> str:
    """Returns a figure; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _cells(cells: Sequence[str], tag: str, texts: int) -> str:
    kinds = ["" if place < texts else "number" for place in range(len(cells))]
    return element(
        "tr",
        *(element(tag, escape(c), class_=k or False) for c, k in zip(cells, kinds)),
    )
