"""Curves with the spread of repeated runs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from parity.labs import figures


def draw(
    axes: Axes,
    curves: Mapping[str, np.ndarray],
    x: np.ndarray | Mapping[str, np.ndarray] | None = None,
) -> None:
    """Draws means over runs, and shades from the least run to the largest.

    Args:
      axes: where.
      curves: label -> [runs, points]; NaN where a run has ended.
      x: [points], of each label if they differ; None: 1, 2, ...
    """
    for number, (label, values) in enumerate(curves.items()):
        at = x[label] if isinstance(x, Mapping) else x
        at = np.arange(1, values.shape[1] + 1) if at is None else at[: values.shape[1]]
        # A mean of the runs that are left would go on where the worst has stopped.
        mean = values.mean(axis=0)
        style = figures.stroke(number, values.shape[1])
        axes.plot(at, mean, label=label, **style)
        if len(values) > 1:
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(at, low, high, color=style["color"], alpha=0.15, lw=0)
