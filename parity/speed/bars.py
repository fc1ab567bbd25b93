"""The results as a bar chart."""

import pathlib
from collections.abc import Sequence

from matplotlib.patches import Patch

from jaxnn.experiment.results.plots import canvas
from parity.speed.competitors import JAXNN
from parity.speed.measuring import Result
from parity.speed.table import label, seconds

HEIGHT = 0.55
"""Inches of a competitor."""


def draw(title: str, results: Sequence[Result], path: pathlib.Path) -> None:
    """Draws whole process and training of each competitor, least training on top.

    Args:
      title: what was measured.
      results: one for each competitor; who failed is left out.
      path: PNG to write.
    """
    shown = sorted(
        (result for result in results if result.runs),
        key=lambda result: result.median("training"),
        reverse=True,
    )
    figure, axes = canvas.new((7, 1.4 + HEIGHT * len(shown)))
    for place, result in enumerate(shown):
        for field, color, shift in (
            ("wall", canvas.LIGHT, -0.2),
            ("training", canvas.DARK, 0.2),
        ):
            value = result.median(field)
            bar = axes.barh(place + shift, value, 0.38, color=color)
            axes.bar_label(bar, [seconds(value)], padding=3, fontsize=8)
    axes.set_yticks(range(len(shown)), [label(result, results) for result in shown])
    for tick, result in zip(axes.get_yticklabels(), shown):
        tick.set_fontweight("bold" if result.competitor.kind == JAXNN else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="seconds, median over the rounds", title=title)
    axes.margins(x=0.12)
    figure.legend(
        handles=[
            Patch(color=canvas.DARK, label="training"),
            Patch(color=canvas.LIGHT, label="whole process"),
        ],
        loc="outside lower right",
        ncols=2,
        frameon=False,
    )
    canvas.save(figure, path)
