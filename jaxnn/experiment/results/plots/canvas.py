"""What the pictures share: sizes, tones that differ in grayscale too, and the units
they are drawn in."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnn.experiment.data.dataset import Dataset

DARK, LIGHT = "#08306b", "#6baed6"
TRUTH = dict(color="black", linewidth=3, alpha=0.3)
"""The line of what is true, behind what was learned."""


def new(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure of so many inches, and its axes."""
    figure, (axes,) = new_rows(size, [1])
    return figure, axes


def new_rows(
    size: tuple[float, float], heights: list[float]
) -> tuple[Figure, list[Axes]]:
    """A figure with axes one above the other, over the same x, in proportion to
    `heights`."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(
        len(heights), sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for axes in rows:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(rows)


def unscaled(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """Inputs in the units that they were measured in: [n, ...] -> [n, ...]."""
    return data.scaling.invert(inputs) if data.scaled_on_host else inputs
