"""Figure 2: z of every tensor at every step, a row a tensor, grouped by quantity.

A row is an SVG stretched by the page; each colour is one path of horizontal strokes, so
that neighbouring steps of one colour cost a few bytes together.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from parity.judging.measure import UNEQUAL, Measurement, spell_worst
from parity.quantities import QUANTITIES
from parity.report.curves import step_axis
from parity.report.html import element

OPEN_ROWS = 60
"""A figure with no more rows than this is wholly unfolded; of a larger one only the
quantities that failed."""
SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 10, 1000)
"""Upper bounds of the colours as shares of the threshold. One more colour has no bound,
and the last one is for what is unequal."""

Row = Mapping[int, float]
"""Step -> z."""


def figure(
    measurements: Sequence[Measurement], threshold: float, order: Sequence[str]
) -> str:
    """Returns the figure as HTML.

    Args:
      measurements: measurements of one recording.
      threshold: largest z that passes.
      order: tensor names in the order in which a step computes them.
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
    # The same for every row, so it is written out once, here.
    frame = f'<svg viewBox="0 -1 {steps} 2" preserveAspectRatio="none">'
    body = body.replace("<svg>", frame)
    axis = element("div", element("span"), step_axis("span", steps), class_="row")
    return _legend(threshold) + element("div", body, axis, class_="heat")


def rows(
    measurements: Iterable[Measurement], order: Sequence[str]
) -> dict[str, dict[str, Row]]:
    """Returns quantity -> tensor -> step -> z, in the order of a step.

    Of the moments, all first ones come before all second ones.
    """
    table: dict[str, dict[str, dict[int, float]]] = {name: {} for name in QUANTITIES}
    for m in measurements:
        table[m.quantity].setdefault(m.tensor, {})[m.step] = m.z
    places = {name: place for place, name in enumerate(order)}

    def when(tensor: str) -> tuple[str, int]:
        # "first/hidden/kernel" is a moment of the parameter "hidden/kernel".
        moment, _, name = tensor.partition("/")
        if tensor not in places and name in places:
            return moment, places[name]
        return "", places.get(tensor, len(places))

    return {
        quantity: {tensor: tensors[tensor] for tensor in sorted(tensors, key=when)}
        for quantity, tensors in table.items()
        if tensors
    }


def _shown(quantity: str, tensors: dict[str, Row]) -> dict[str, Row]:
    """Of an equality only the tensors that are unequal somewhere."""
    if not QUANTITIES[quantity].is_exact:
        return tensors
    broken = {tensor: row for tensor, row in tensors.items() if max(row.values()) > 0}
    return broken or {"": _together(tensors.values())}


def _together(tensors: Iterable[Row]) -> dict[int, float]:
    """Returns step -> the largest z of any row."""
    worst: dict[int, float] = {}
    for row in tensors:
        for step, value in row.items():
            worst[step] = max(value, worst.get(step, 0.0))
    return worst


def colour(value: float, threshold: float) -> int:
    """Returns the index of the colour of a z: 0 is zero, the last one is unequal."""
    if value == UNEQUAL:
        return len(SHARES) + 1
    return sum(value > share * threshold for share in SHARES)


def _group(
    quantity: str, tensors: Mapping[str, Row], threshold: float, is_small: bool
) -> str:
    """A row for the worst of a quantity, which unfolds the rows of its tensors."""
    worst = _together(tensors.values())
    name = element("b", QUANTITIES[quantity].label)
    if len(tensors) == 1:
        (tensor,) = tensors
        return _row(quantity, f"{name} {escape(tensor)}", worst, threshold)
    count = element("small", f"{len(tensors)} tensors")
    head = _row(quantity, f"{name} {count}", worst, threshold, tag="summary")
    body = "".join(
        _row(quantity, escape(tensor), row, threshold)
        for tensor, row in tensors.items()
    )
    return element("details", head, body, open=is_small or _fails(worst, threshold))


def _row(
    quantity: str, label: str, row: Row, threshold: float, tag: str = "div"
) -> str:
    """Label, colours, and the largest z with its step."""
    fails = _fails(row, threshold)
    step = max(row, key=lambda step: row[step])
    mark = "✗ " if fails else ""
    where = " " + element("small", f"at {step}") if row[step] else ""
    return element(
        tag,
        element("span", label),
        element("svg", *_strokes(row, threshold)),
        element("span", mark, spell_worst(quantity, row[step]), where),
        class_="row bad" if fails else "row",
    )


def _fails(row: Row, threshold: float) -> bool:
    return max(row.values()) > threshold


def _strokes(row: Row, threshold: float) -> Iterator[str]:
    """Yields a path for each colour of a row.

    Each stroke starts relative to the end of the one before, and attributes go without
    quotes: fifty steps of two hundred tensors must stay below a megabyte.
    """
    paths: dict[int, str] = {}
    ends: dict[int, int] = {}
    cells = [(step, colour(value, threshold)) for step, value in sorted(row.items())]
    runs = itertools.groupby(
        enumerate(cells), lambda cell: (cell[1][0] - cell[0], cell[1][1])
    )
    for (_, index), run in runs:
        first, *others = (step for _, (step, _) in run)
        length = 1 + len(others)
        move = f"m{first - ends[index]}" if index in ends else f"M{first}"
        paths[index] = f"{paths.get(index, '')}{move} 0h{length}"
        ends[index] = first + length
    for index, path in paths.items():
        yield f'<path class=c{index} d="{path}"/>'


def _legend(threshold: float) -> str:
    bounds = [f"{share * threshold:g}" for share in SHARES]
    middle = [f"to {bound}" for bound in bounds[1:]]
    texts = ["0", *middle, f"over {bounds[-1]}", "unequal"]
    colours = [
        element("span", element("i", class_=f"cell c{index}"), text)
        for index, text in enumerate(texts)
    ]
    nothing = element("span", element("i", class_="cell"), "not measured")
    return element("p", *colours, nothing, class_="legend")
