"""Style of the plots: figures, colours, and inputs in their original units."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.preprocessing import HostScaling
from jaxnn.experiment.files import artifacts

DPI = 150

# Two blues that differ in grayscale too.
DARK = "#08306b"
LIGHT = "#6baed6"

# The true curve, behind the learned one.
TRUTH: dict[str, Any] = dict(color="black", linewidth=3, alpha=0.3)


def new(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Returns a figure with one set of axes; its size is in inches."""
    figure, (axes,) = new_rows(size, [1])
    return figure, axes


def new_rows(
    size: tuple[float, float], heights: list[float]
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with rows of axes that share their x axis.

    Args:
      size: width and height in inches.
      heights: height of each row, in proportion to the others.
    """
    # Figure instead of pyplot: no global state, no window, and nothing to close.
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(
        len(heights), sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for axes in rows:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(rows)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    figure.set_dpi(DPI)
    agg = FigureCanvasAgg(figure)
    with artifacts.whole(path) as partial:
        # The same file as of `savefig`, which draws twice: once to arrange the axes,
        # which the drawing itself does as well.
        agg.print_png(partial)


def unscaled(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """Returns inputs in the units in which they were measured: [n, ...] -> [n, ...]."""
    if isinstance(data.scaling, HostScaling):
        return data.scaling.invert(inputs)
    return inputs
