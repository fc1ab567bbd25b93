"""Pictures of a workdir: the learning curve, and what the task wants. Readable in grayscale."""

import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnn.experiment import records, report
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import REGRESSION, Dataset

DARK, LIGHT = "#08306b", "#6baed6"


def draw(experiment: Experiment, data: Dataset, workdir: pathlib.Path, params: Mapping[str, np.ndarray],
         outputs: np.ndarray) -> None:
    """Draws every picture of a finished run into plots/.

    Args:
      experiment: what ran.
      data: its data set.
      workdir: holds metrics.csv.
      params: flat master parameters.
      outputs: [test samples, ...] of the trained network.
    """
    figures = {"learning_curve": learning_curve(records.read_metrics(workdir), experiment.loss)}
    if experiment.dataset == experiment.model == "linear":
        figures["fit"] = fit_line(data, float(params["output/kernel"].item()), float(params["output/bias"].item()))
    if data.task != REGRESSION:
        figures["confusion_matrix"] = confusion_matrix(data, report.predicted_classes(data, outputs))
    (workdir / "plots").mkdir(exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(workdir / "plots" / f"{name}.png", dpi=150)


def learning_curve(metrics: Mapping[str, np.ndarray], loss: str) -> Figure:
    """Training and test loss by epoch, on a log scale."""
    figure, axes = _new((6, 4))
    axes.plot(metrics["epoch"], metrics["train_loss"], color=DARK, label="training")
    axes.plot(metrics["epoch"], metrics["test_loss"], color=LIGHT, linestyle="--", label="test")
    axes.set(xlabel="epoch", ylabel=f"loss ({loss.replace('_', ' ')})", title="Learning curve")
    if max(metrics["train_loss"].max(), metrics["test_loss"].max()) > 0:
        axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure


def fit_line(data: Dataset, weight: float, bias: float) -> Figure:
    """The fitted line over the test points and the true line."""
    figure, axes = _new((6, 4))
    points = slice(0, 200)
    ends = np.array([data.test_inputs.min(), data.test_inputs.max()])
    axes.scatter(data.test_inputs[points, 0], data.test_targets[points, 0], s=16, facecolors="none", edgecolors=LIGHT,
                 zorder=3, label="test data")
    axes.plot(ends, report.TRUE_WEIGHT * ends + report.TRUE_BIAS, color="black", linewidth=3, alpha=0.3,
              label="true: y = 2x + 1")
    axes.plot(ends, weight * ends + bias, color=DARK, linestyle="--", label=f"fitted: y = {weight:.4f}x + {bias:.4f}")
    axes.set(xlabel="x", ylabel="y", title="Fit")
    axes.legend(frameon=False)
    return figure


def confusion_matrix(data: Dataset, predicted: np.ndarray) -> Figure:
    """Counts of test samples by true and predicted class."""
    classes = len(data.class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (data.test_targets.reshape(-1).astype(int), predicted), 1)
    figure, axes = _new((1.5 + 0.45 * max(classes, 6), 1 + 0.45 * max(classes, 6)))
    axes.imshow(counts, cmap="Blues", vmin=0)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > counts.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(classes), data.class_names)
    axes.set_yticks(range(classes), data.class_names)
    axes.set(xlabel="predicted class", ylabel="true class", title="Confusion matrix (test)")
    axes.spines[["top", "right"]].set_visible(True)
    return figure


def _new(size: tuple[float, float]):
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
