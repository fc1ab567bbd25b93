"""Plots of how a line is fitted: its weight and bias by epoch, and on the loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.results import report
from jaxnn.experiment.results.plots import canvas

SIDE = 81
"""Points of the loss surface along each axis."""
MARGIN = 0.2
"""Of the surface around what lies on it, in parts of its width."""
LEVELS = 10
"""Contours; each costs as many times the one below it."""
LEAST = 1e-3
"""Lowest contour over the highest: closer ones to the minimum cannot be told apart."""


def true_line(data: Dataset) -> tuple[float, float]:
    """Returns weight and bias of y = 2x + 1 on the inputs as the network gets them."""
    # x is linear in the scaled input, so that two points of it are enough.
    start, end = canvas.unscaled(data, np.array([[0.0], [1.0]])).reshape(-1)
    weight = report.TRUE_WEIGHT * (end - start)
    return float(weight), float(report.TRUE_WEIGHT * start + report.TRUE_BIAS)


def parameters(metrics: Mapping[str, np.ndarray], data: Dataset) -> Figure:
    """Weight and bias by epoch, over their true values."""
    figure, axes = canvas.new((6, 4))
    # A line through a single point is invisible.
    single = "o" if len(metrics["epoch"]) == 1 else None
    styles: tuple[dict[str, Any], ...] = (
        dict(color=canvas.DARK),
        dict(color=canvas.LIGHT, linestyle="--"),
    )
    for name, style, truth in zip(("weight", "bias"), styles, true_line(data)):
        axes.axhline(truth, **canvas.TRUTH)
        label = f"{name}, true {truth:.4g}"
        axes.plot(metrics["epoch"], metrics[name], label=label, marker=single, **style)
    axes.set(xlabel="epoch", ylabel="value", title="Parameters by epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.legend(frameon=False)
    return figure


def loss_surface(metrics: Mapping[str, np.ndarray], data: Dataset) -> Figure:
    """Contours of the training loss over weight and bias, with the path of the run."""
    figure, axes = canvas.new((6, 5))
    path = np.stack([metrics["weight"], metrics["bias"]])
    truth = np.array(true_line(data))
    weights, biases = (_range(*pair) for pair in zip(path, truth[:, None], strict=True))
    _contours(axes, data, weights, biases)
    axes.plot(
        *path,
        color="black",
        marker="o",
        markersize=3,
        linewidth=1,
        label=f"after each epoch, 1 to {metrics['epoch'][-1]:.0f}",
    )
    point: dict[str, Any] = dict(
        color="black", markerfacecolor="white", linestyle="none"
    )
    axes.plot(*path[:, :1], "s", markersize=7, label="after the first", **point)
    label = f"true: {truth[0]:.4g}, {truth[1]:.4g}"
    axes.plot(*truth, "*", markersize=13, label=label, **point)
    axes.set(xlabel="weight", ylabel="bias", title="Training loss (mse)")
    # Below the axes, where it hides no part of the path.
    figure.legend(frameon=False, ncols=3, loc="outside lower center")
    return figure


def squared_error(data: Dataset, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Returns the mean squared error of lines on the training split.

    It is a parabola in both, so that a few means over the samples give it everywhere.

    Args:
      data: a data set with one input and one target.
      weights: [...].
      biases: [...].

    Returns:
      [...] float64.
    """
    x, t = (
        np.asarray(array, np.float64).reshape(-1)
        for array in (data.train_inputs, data.train_targets)
    )
    # About the means, where little cancels.
    slope = np.mean((x - x.mean()) * (t - t.mean())) / np.var(x)
    rest = np.var(t - slope * x)
    offset = weights * x.mean() + biases - t.mean()
    return np.square(weights - slope) * np.var(x) + np.square(offset) + rest


def _range(path: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns [SIDE] values around those of one parameter, and around its true one."""
    values = np.concatenate([path, truth])
    low, high = values.min(), values.max()
    # Around a run that stands still there is something to see, too.
    margin = max(MARGIN * (high - low), 0.1)
    return np.linspace(low - margin, high + margin, SIDE)


def _contours(
    axes: Axes, data: Dataset, weights: np.ndarray, biases: np.ndarray
) -> None:
    """Draws the loss: the darker, the lower."""
    losses = squared_error(data, *np.meshgrid(weights, biases))
    highest = losses.max()
    lowest = max(losses.min(), LEAST * highest)
    levels = np.geomspace(lowest, highest, LEVELS)
    shown = np.clip(losses, lowest, highest)
    axes.contourf(weights, biases, shown, levels, cmap="Blues_r", alpha=0.6, norm="log")
    lines = axes.contour(
        weights, biases, shown, levels[1:-1], colors="black", linewidths=0.5, alpha=0.6
    )
    axes.clabel(lines, fmt="%.2g", fontsize=7)
