"""Pictures of a sweep: the metric against each flag, and the curves of the best."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnn.experiment.results.plots import canvas
from jaxnn.sweep import axes, records
from jaxnn.sweep.members import Member
from jaxnn.sweep.ranking import Ranked
from jaxnn.sweep.records import Record

FOLDER = "plots"
COLUMNS = 3
"""Axes in a row."""
MOST_CURVES = 5
DECADES = 10
"""Ratio of largest and least value from which an axis is logarithmic."""
STYLES = ("-", "--", "-.", ":", (0, (1, 3)))


def draw(
    workdir: pathlib.Path,
    ranked: Sequence[Ranked],
    found: Mapping[int, Record],
    column: str,
    metric: str,
) -> None:
    """Writes parameters.png and curves.png; nothing of members that all diverged.

    Args:
      workdir: folder of the sweep.
      ranked: settings, the best first.
      found: member's number -> its record.
      column: loss that ranks them.
      metric: column of the metric.
    """
    folder = workdir / FOLDER
    folder.mkdir(exist_ok=True)
    members = [
        member
        for each in ranked
        for member in each.members
        if found[member.number].status in (records.DONE, records.STOPPED)
    ]
    if not members:
        return
    canvas.save(parameters(members, found, metric), folder / "parameters.png")
    canvas.save(curves(ranked, found, column), folder / "curves.png")


def parameters(
    members: Sequence[Member], found: Mapping[int, Record], metric: str
) -> Figure:
    """The metric of each member against each of its flags."""
    flags = list(members[0].settings)
    columns = min(len(flags), COLUMNS)
    rows = -(-len(flags) // columns)
    size = (3.2 * columns + 0.6, 2.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).reshape(-1)
    reached = [_kept(found[member.number])[metric] for member in members]
    for at, flag in zip(grid, flags):
        _scatter(at, [member.settings[flag] for member in members], reached)
        at.set_xlabel(flag)
        at.spines[["top", "right"]].set_visible(False)
    for at in grid[len(flags) :]:
        at.remove()
    for at in grid[: len(flags) : columns]:
        at.set_ylabel(metric.replace("_", " "))
    return figure


def _scatter(at: Axes, values: Sequence[Any], reached: Sequence[float]) -> None:
    style: dict[str, Any] = dict(color=canvas.DARK, alpha=0.6, s=18, linewidths=0)
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        at.scatter(values, reached, **style)
        if min(values) > 0 and max(values) >= DECADES * min(values):
            at.set_xscale("log")
        return
    names = [axes.spell_value(value) or "none" for value in values]
    known = list(dict.fromkeys(names))
    at.scatter([known.index(name) for name in names], reached, **style)
    at.set_xticks(range(len(known)), known, rotation=30, ha="right")
    at.set_xlim(-0.5, len(known) - 0.5)


def curves(
    ranked: Sequence[Ranked], found: Mapping[int, Record], column: str
) -> Figure:
    """The loss of the best settings by epoch: mean, and from least to largest."""
    figure, at = canvas.new((6.5, 4.2))
    shades = np.linspace(0, 0.75, MOST_CURVES)
    for each, shade, style in zip(ranked, shades, STYLES):
        losses = _losses(each, found, column)
        if not losses.size:
            continue
        epochs = np.arange(1, losses.shape[1] + 1)
        # From the darker of the two blues towards white.
        blue = np.array([8, 48, 107]) / 255
        color = tuple(blue + shade * (1 - blue))
        label = axes.spell(each.settings) or f"{len(each.members)} members"
        at.plot(epochs, losses.mean(0), color=color, linestyle=style, label=label)
        if len(losses) > 1:
            at.fill_between(
                epochs, losses.min(0), losses.max(0), color=color, alpha=0.2, lw=0
            )
    at.set(xlabel="epoch", ylabel=column.replace("_", " "))
    if np.all(np.concatenate([line.get_ydata() for line in at.lines]) > 0):
        at.set_yscale("log")
    at.legend(frameon=False, fontsize=8)
    return figure


def _losses(each: Ranked, found: Mapping[int, Record], column: str) -> np.ndarray:
    """Returns [members, epochs] losses, up to the shortest member's end."""
    of = [found[member.number].rows for member in each.members]
    shortest = min(map(len, of))
    return np.array([[row[column] for row in rows[:shortest]] for rows in of])


def _kept(record: Record) -> dict[str, float]:
    return record.rows[record.kept - 1]
