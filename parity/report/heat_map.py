"""Figure 2: z of every tensor at every step, a row a tensor, grouped by quantity.

A row is an SVG stretched by the page; each colour is one path of horizontal strokes, so
that neighbouring steps of one colour cost a few bytes together.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from parity.judging.measure import BROKEN, EXACT, PHASES, Measurement
from parity.report import words
from parity.report.terminal import EXPLANATION

OPEN_ROWS = 60
"""The quantities of a figure with no more rows than this are all open; of a larger one
those that failed."""
SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 10, 1000)
"""Upper bounds of the colours as shares of the threshold; one more colour has no bound,
the last is unequal."""

Row = Mapping[int, float]
"""Step -> z."""


def figure(
    measurements: Sequence[Measurement], threshold: float, order: Sequence[str]
) -> str:
    """The figure as HTML.

    Args:
      measurements: of one recording.
      threshold: largest z that passes.
      order: tensor names in the order in which a step makes them.
    """
    steps = max(m.step for m in measurements) + 1
    groups = {
        quantity: _shown(quantity, tensors)
        for quantity, tensors in rows(measurements, order).items()
    }
    is_small = sum(map(len, groups.values())) <= OPEN_ROWS
    body = "".join(
        _group(quantity, tensors, threshold, is_small)
        for quantity, tensors in groups.items()
    )
    body = body.replace(
        "<svg>", f'<svg viewBox="0 -1 {steps} 2" preserveAspectRatio="none">'
    )
    return (
        f'{_legend(threshold)}<div class="heat">{body}<div '
        'class="row"><span></span><span class="steps"><span>step '
        f"0</span><span>{steps - 1}</span></span></div></div>"
    )


def rows(
    measurements: Iterable[Measurement], order: Sequence[str]
) -> dict[str, dict[str, Row]]:
    """Quantity -> tensor -> step -> z, in the order in which a step makes them; moments
    first of one kind."""
    table: dict[str, dict[str, dict[int, float]]] = {
        quantity: {} for quantity in PHASES
    }
    for m in measurements:
        table[m.quantity].setdefault(m.tensor, {})[m.step] = m.z
    places = {name: place for place, name in enumerate(order)}

    def when(tensor: str) -> tuple[str, int]:
        kind, _, name = tensor.partition("/")
        is_part = tensor not in places and name in places
        return (
            (kind, places[name]) if is_part else ("", places.get(tensor, len(places)))
        )

    return {
        quantity: {tensor: tensors[tensor] for tensor in sorted(tensors, key=when)}
        for quantity, tensors in table.items()
        if tensors
    }


def _shown(quantity: str, tensors: dict[str, Row]) -> dict[str, Row]:
    """Of an equality only the tensors that are unequal somewhere."""
    if quantity not in EXACT:
        return tensors
    broken = {tensor: row for tensor, row in tensors.items() if max(row.values()) > 0}
    return broken or {"": _together(tensors.values())}


def _together(tensors: Iterable[Row]) -> dict[int, float]:
    """Step -> the largest z of any row."""
    worst: dict[int, float] = {}
    for row in tensors:
        for step, value in row.items():
            worst[step] = max(value, worst.get(step, 0.0))
    return worst


def colour(value: float, threshold: float) -> int:
    """Index of the colour of a z: 0 is zero, the last is unequal."""
    if value == BROKEN:
        return len(SHARES) + 1
    return sum(value > share * threshold for share in SHARES)


def _group(
    quantity: str, tensors: Mapping[str, Row], threshold: float, is_small: bool
) -> str:
    """A row for the worst of a quantity, which opens and shuts the rows of its tensors."""
    worst, name = _together(tensors.values()), EXPLANATION[quantity]
    if len(tensors) == 1:
        tensor = next(iter(tensors))
        label = f"<b>{name}</b> {escape(tensor)}"
        return (
            "<div "
            f'class="row{_bad(worst, threshold)}">{_cells(quantity, label, worst, threshold)}</div>'
        )
    is_open = " open" if is_small or _bad(worst, threshold) else ""
    head = _cells(
        quantity,
        f"<b>{name}</b> <small>{len(tensors)} tensors</small>",
        worst,
        threshold,
    )
    body = "".join(
        "<div "
        f'class="row{_bad(row, threshold)}">{_cells(quantity, escape(tensor), row, threshold)}</div>'
        for tensor, row in tensors.items()
    )
    return (
        f"<details{is_open}><summary "
        f'class="row{_bad(worst, threshold)}">{head}</summary>{body}</details>'
    )


def _cells(quantity: str, label: str, row: Row, threshold: float) -> str:
    """Name, colours, and the largest z with its step."""
    step = max(row, key=lambda step: row[step])
    mark = "✗ " if _bad(row, threshold) else ""
    where = f" <small>at {step}</small>" if row[step] else ""
    return (
        f"<span>{label}</span><svg>{''.join(_strokes(row, threshold))}</svg>"
        f"<span>{mark}{words.worst(quantity, row[step])}{where}</span>"
    )


def _bad(row: Row, threshold: float) -> str:
    return " bad" if max(row.values()) > threshold else ""


def _strokes(row: Row, threshold: float) -> Iterator[str]:
    """A path for each colour of a row; each stroke begins where the one before ended
    and a gap is over."""
    paths: dict[int, str] = {}
    ends: dict[int, int] = {}
    cells = [(step, colour(value, threshold)) for step, value in sorted(row.items())]
    for (_, index), run in itertools.groupby(
        enumerate(cells), lambda cell: (cell[1][0] - cell[0], cell[1][1])
    ):
        first, *others = (step for _, (step, _) in run)
        length = 1 + len(others)
        move = f"m{first - ends[index]}" if index in ends else f"M{first}"
        paths[index] = f"{paths.get(index, '')}{move} 0h{length}"
        ends[index] = first + length
    for index, path in paths.items():
        yield f'<path class=c{index} d="{path}"/>'


def _legend(threshold: float) -> str:
    bounds = [f"{share * threshold:g}" for share in SHARES]
    texts = [
        "0",
        *(f"to {bound}" for bound in bounds[1:]),
        f"over {bounds[-1]}",
        "unequal",
    ]
    colours = "".join(
        f'<span><i class="cell c{index}"></i>{text}</span>'
        for index, text in enumerate(texts)
    )
    return (
        f'<p class="legend">{colours}<span><i class="cell"></i>not measured</span></p>'
    )
