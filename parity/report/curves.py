"""Figure 1: the worst z of each quantity over the steps, on a log scale.

The drawing is stretched to the width of the page, so strokes keep their width
(`vector-effect`) and all text is HTML beside it: a phone shows it as large as a screen
does.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from parity.judging.measure import UNEQUAL, Measurement, spell_z
from parity.quantities import QUANTITIES
from parity.report.html import element

LOWEST = 1e-2
"""A smaller z is a dot at the bottom."""
TOP = 8.0
"""Percent of the height above the scale, where what is unequal is drawn."""
UNEQUAL_HEIGHT = TOP / 3
MOST_DOTS = 60
"""Most steps at which every point gets a dot."""
MOST_LABELS = 8

Series = Mapping[str, Mapping[int, float]]
"""Quantity -> step -> its largest z."""


def figure(measurements: Sequence[Measurement], threshold: float) -> str:
    """Returns the figure as HTML.

    Args:
      measurements: measurements of one recording.
      threshold: largest z that passes.
    """
    steps = max(m.step for m in measurements) + 1
    series = worst_by_step(measurements)
    scale = Scale(series, threshold)
    grid = [_level("grid", scale.height(value), steps) for value in scale.grid]
    allowed = _level("threshold", scale.height(threshold), steps)
    curves = [_curve(name, points, scale, steps) for name, points in series.items()]
    drawing = element(
        "svg",
        *grid,
        allowed,
        *curves,
        # Half a step of room on both sides, so that the outermost dots are whole.
        viewBox=f"-0.5 0 {steps} 100",
        preserveAspectRatio="none",
        role="img",
        aria_label="worst z of each quantity over the steps",
    )
    labels = [
        element("span", text, style=f"top:{height:.1f}%")
        for height, text in scale.labels()
    ]
    box = element(
        "div",
        element("div", *labels, class_="scale"),
        drawing,
        step_axis("div", steps),
        class_="curves",
    )
    return box + element("p", *_legend(series, threshold), class_="legend")


def step_axis(tag: str, steps: int) -> str:
    """Returns the labels of the first and last step, under a figure."""
    first = element("span", "step 0")
    last = element("span", str(steps - 1))
    return element(tag, first, last, class_="steps")


def worst_by_step(measurements: Iterable[Measurement]) -> dict[str, dict[int, float]]:
    """Returns quantity -> step -> its largest z, both in order.

    Equalities appear only at steps where they are broken.
    """
    series: dict[str, dict[int, float]] = {quantity: {} for quantity in QUANTITIES}
    for m in measurements:
        if m.z or not m.definition.is_exact:
            points = series[m.quantity]
            points[m.step] = max(m.z, points.get(m.step, 0.0))
    return {
        quantity: dict(sorted(points.items()))
        for quantity, points in series.items()
        if points
    }


class Scale:
    """Maps each z to percent from the top of the drawing.

    Args:
      series: everything to be drawn.
      threshold: largest z that passes; always within the scale.

    Attributes:
      grid: powers of ten to draw lines at.
    """

    def __init__(self, series: Series, threshold: float):
        values = [value for points in series.values() for value in points.values()]
        finite = [value for value in values if value != UNEQUAL]
        low = math.log10(LOWEST)
        # A fifth of room above the threshold, and never less than a decade above 1.
        high = math.ceil(math.log10(max(*finite, threshold * 1.2, 10)))
        self._span = high - low
        self._any_unequal = len(finite) < len(values)
        self.grid = [10.0**power for power in range(round(low), high + 1)]

    def height(self, value: float) -> float:
        """Returns the height of a z."""
        if value == UNEQUAL:
            return UNEQUAL_HEIGHT
        share = math.log10(max(value, LOWEST) / LOWEST) / self._span
        return TOP + (100 - TOP) * (1 - share)

    def labels(self) -> list[tuple[float, str]]:
        """Returns (height, text) of each label, few enough not to overlap."""
        shown = self.grid[:: math.ceil(len(self.grid) / MOST_LABELS)]
        numbers = [(self.height(value), f"{value:g}") for value in shown[1:]]
        unequal = [(UNEQUAL_HEIGHT, "unequal")] if self._any_unequal else []
        return [(100.0, f"≤ {LOWEST:g}"), *numbers, *unequal]


def _level(kind: str, height: float, steps: int) -> str:
    return element("path", class_=kind, d=f"M-.5 {height:.1f}h{steps}")


def _curve(quantity: str, points: Mapping[int, float], scale: Scale, steps: int) -> str:
    """A line through neighbouring steps, and dots where they are few.

    The line is broken where z is as good as zero or unequal.
    """
    places = {step: f"{step} {scale.height(z):.1f}" for step, z in points.items()}
    on_line = [step for step, z in points.items() if LOWEST < z < UNEQUAL]
    # Consecutive steps have the same distance from their place in the list.
    runs = itertools.groupby(enumerate(on_line), lambda item: item[1] - item[0])
    line = "".join("M" + "L".join(places[step] for _, step in run) for _, run in runs)
    dotted = [
        place
        for step, place in places.items()
        if steps <= MOST_DOTS or points[step] == UNEQUAL
    ]
    dots = "".join(f"M{place}h0" for place in dotted)
    return element(
        "g",
        element("title", QUANTITIES[quantity].label),
        element("path", class_="line", d=line),
        element("path", class_="dots", d=dots),
        class_=quantity,
    )


def _legend(series: Series, threshold: float) -> list[str]:
    dashes = element("i", class_="line threshold")
    entries = [element("span", dashes, f"allowed: {threshold:g}")]
    for quantity, points in series.items():
        stroke = element("i", class_=f"line {quantity}")
        worst = element("small", spell_z(max(points.values())))
        label = QUANTITIES[quantity].label
        entries.append(element("span", stroke, f"{label} ", worst))
    return entries
