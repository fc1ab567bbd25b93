"""Plots of what a regression has learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.results import baselines, report, scores
from jaxnn.experiment.results.plots import canvas

# Points of the scatter plots and steps of the forecast; more cannot be told apart.
MOST_LINE_POINTS = 200
MOST_POINTS = 2000
STEPS_SHOWN = 300


def fit_line(data: Dataset, weight: float, bias: float) -> Figure:
    """Fitted line, true line and test points."""
    figure, axes = canvas.new((6, 4))
    points = slice(0, MOST_LINE_POINTS)
    inputs = np.asarray(data.test_inputs)
    ends = np.array([inputs.min(), inputs.max()])
    axes.scatter(
        inputs[points, 0],
        data.test_targets[points, 0],
        s=16,
        facecolors="none",
        edgecolors=canvas.LIGHT,
        zorder=3,
        label="test data",
    )
    axes.plot(
        ends,
        report.TRUE_WEIGHT * ends + report.TRUE_BIAS,
        label="true: y = 2x + 1",
        **canvas.TRUTH,
    )
    axes.plot(
        ends,
        weight * ends + bias,
        color=canvas.DARK,
        linestyle="--",
        label=f"fitted: y = {weight:.4f}x + {bias:.4f}",
    )
    axes.set(xlabel="x", ylabel="y", title="Fit")
    axes.legend(frameon=False)
    return figure


def predicted_over_true(data: Dataset, outputs: np.ndarray) -> Figure:
    """Predictions over targets of the test split; equal values are on the diagonal."""
    figure, axes = canvas.new((5, 5))
    true = data.test_targets.reshape(-1)
    predicted = outputs.reshape(-1)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    r2 = scores.r2(outputs, data.test_targets)
    axes.plot(ends, ends, label="predicted = true", **canvas.TRUTH)
    axes.scatter(
        true[:MOST_POINTS],
        predicted[:MOST_POINTS],
        s=16,
        facecolors="none",
        edgecolors=canvas.DARK,
        linewidths=0.8,
        label="test data" if r2 is None else f"test data, $R^2$ = {r2:.3f}",
    )
    axes.set(
        xlabel="true value",
        ylabel="predicted value",
        title="Predicted over true (test)",
        aspect="equal",
    )
    axes.legend(frameon=False)
    return figure


def approximation(data: Dataset, outputs: np.ndarray, function: str) -> Figure:
    """Learned function over its target, with the error below."""
    x = canvas.unscaled(data, np.asarray(data.test_inputs))[:, 0]
    order = np.argsort(x)
    figure = _over_truth(
        x[order], data.test_targets[order, 0], {"network": outputs[order, 0]}
    )
    figure.axes[0].set(
        ylabel="f(x)", title=f"Approximation of {function.replace('_', ' ')} (test)"
    )
    figure.axes[-1].set(xlabel="x")
    return figure


def forecast(data: Dataset, outputs: np.ndarray) -> Figure:
    """Forecasts of the network and of persistence over the true values, with errors."""
    shown = slice(0, STEPS_SHOWN)
    curves = {
        "network": outputs[shown, 0],
        "persistence": baselines.persistence(data)[shown, 0],
    }
    targets = data.test_targets[shown, 0]
    figure = _over_truth(np.arange(len(targets)), targets, curves)
    figure.axes[0].set(ylabel="next value", title="Forecast one step ahead (test)")
    figure.axes[-1].set(xlabel="test window")
    return figure


def _over_truth(
    x: np.ndarray, truth: np.ndarray, curves: Mapping[str, np.ndarray]
) -> Figure:
    """Curves over the true one, with their errors in a row below."""
    figure, (above, below) = canvas.new_rows((6.5, 5), [2, 1])
    above.plot(x, truth, label="true", **canvas.TRUTH)
    below.axhline(0, **canvas.TRUTH)
    styles: tuple[dict[str, Any], ...] = (
        dict(color=canvas.DARK, linewidth=1.2),
        dict(color=canvas.LIGHT, linestyle="--", linewidth=1.2),
    )
    for (label, values), style in zip(curves.items(), styles):
        above.plot(x, values, label=label, **style)
        below.plot(x, values - truth, **style)
    below.set(ylabel="error")
    # One legend outside, where it hides no curve.
    figure.legend(
        *above.get_legend_handles_labels(),
        frameon=False,
        ncols=3,
        loc="outside lower center",
    )
    return figure
