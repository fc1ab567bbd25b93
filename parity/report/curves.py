"""Figure 1: the worst z of each quantity over the steps, on a log scale.

The drawing is stretched to the width of the page, so strokes keep their width
(`vector-effect`) and all text is HTML beside it: a phone shows it as large as a screen
does.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from parity.judging.measure import BROKEN, EXACT, PHASES, Measurement
from parity.report import terminal
from parity.report.terminal import EXPLANATION

LOWEST = 1e-2
"""What lies below is a dot at the bottom."""
TOP = 8.0
"""Percent of the height above the scale; what is unequal is drawn there."""
MOST_DOTS = 60
MOST_LABELS = 8

Series = Mapping[str, Mapping[int, float]]
"""Quantity -> step -> its largest z."""


def figure(measurements: Sequence[Measurement], threshold: float) -> str:
    """The figure as HTML.

    Args:
      measurements: of one recording.
      threshold: largest z that passes.
    """
    steps = max(m.step for m in measurements) + 1
    series = worst_by_step(measurements)
    scale = Scale(series, threshold)
    drawing = "".join(
        [
            *(_level("grid", scale.height(value), steps) for value in scale.grid),
            _level("threshold", scale.height(threshold), steps),
            *(
                _curve(quantity, points, scale, steps)
                for quantity, points in series.items()
            ),
        ]
    )
    labels = "".join(
        f'<span style="top:{height:.1f}%">{text}</span>'
        for height, text in scale.labels()
    )
    return (
        f'<div class="curves"><div class="scale">{labels}</div><svg viewBox="-0.5 0 '
        f'{steps} 100" preserveAspectRatio="none" role="img" aria-label="worst z of '
        f'each quantity over the steps">{drawing}</svg><div class="steps"><span>step '
        f'0</span><span>{steps - 1}</span></div></div><p class="legend"><span><i '
        f'class="line threshold"></i>allowed: {threshold:g}</span>{_legend(series)}</p>'
    )


def worst_by_step(measurements: Iterable[Measurement]) -> dict[str, dict[int, float]]:
    """Quantity -> step -> its largest z, both in order; equalities only where they are
    broken."""
    series: dict[str, dict[int, float]] = {quantity: {} for quantity in PHASES}
    for m in measurements:
        if m.z or m.quantity not in EXACT:
            series[m.quantity][m.step] = max(m.z, series[m.quantity].get(m.step, 0.0))
    return {
        quantity: dict(sorted(points.items()))
        for quantity, points in series.items()
        if points
    }


class Scale:
    """Percent from the top of the drawing of each z.

    Attributes:
      grid: powers of ten.
    """

    def __init__(self, series: Series, threshold: float):
        values = [value for points in series.values() for value in points.values()]
        finite = [value for value in values if value < BROKEN]
        low, high = (
            math.log10(LOWEST),
            math.ceil(math.log10(max(*finite, threshold * 1.2, 10))),
        )
        self._span, self._any_unequal = high - low, len(finite) < len(values)
        self.grid = [10.0**power for power in range(round(low), high + 1)]

    def height(self, value: float) -> float:
        """Of a z."""
        if value == BROKEN:
            return TOP / 3
        return TOP + (100 - TOP) * (
            1 - math.log10(max(value, LOWEST) / LOWEST) / self._span
        )

    def labels(self) -> list[tuple[float, str]]:
        """(height, text): few enough not to overlap."""
        shown = self.grid[:: math.ceil(len(self.grid) / MOST_LABELS)]
        numbers = [(self.height(value), f"{value:g}") for value in shown[1:]]
        unequal = [(TOP / 3, "unequal")] if self._any_unequal else []
        return [(100.0, f"≤ {LOWEST:g}"), *numbers, *unequal]


def _level(kind: str, height: float, steps: int) -> str:
    return f'<path class="{kind}" d="M-.5 {height:.1f}h{steps}"/>'


def _curve(quantity: str, points: Mapping[int, float], scale: Scale, steps: int) -> str:
    """A line through neighbouring steps, broken where z is as good as zero or unequal,
    and dots where they are few."""
    places = {
        step: f"{step} {scale.height(value):.1f}" for step, value in points.items()
    }
    on_line = [step for step, value in points.items() if LOWEST < value < BROKEN]
    runs = itertools.groupby(enumerate(on_line), lambda item: item[1] - item[0])
    line = "".join("M" + "L".join(places[step] for _, step in run) for _, run in runs)
    dotted = (
        places
        if steps <= MOST_DOTS
        else {step: places[step] for step in points if points[step] == BROKEN}
    )
    dots = "".join(f"M{place}h0" for place in dotted.values())
    return (
        f'<g class="{quantity}"><title>{EXPLANATION[quantity]}</title>'
        f'<path class="line" d="{line}"/><path class="dots" d="{dots}"/></g>'
    )


def _legend(series: Series) -> str:
    return "".join(
        f'<span><i class="line {quantity}"></i>{EXPLANATION[quantity]} '
        f"<small>{terminal.z(max(points.values()))}</small></span>"
        for quantity, points in series.items()
    )
