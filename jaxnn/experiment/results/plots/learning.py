"""Plot of the learning curve."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.plots import canvas

# Column of metrics.csv -> label and style of its curve.
CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "train_loss": ("training", dict(color=canvas.DARK)),
    "evaluated_train_loss": (
        "training, evaluated",
        dict(color=canvas.DARK, linestyle=":"),
    ),
    "validation_loss": ("validation", dict(color="black", linestyle="-.")),
    "test_loss": ("test", dict(color=canvas.LIGHT, linestyle="--")),
}


def learning_curve(metrics: Mapping[str, np.ndarray], experiment: Experiment) -> Figure:
    """Loss of each split by epoch, with the best epoch marked.

    The scale is logarithmic unless half of the losses or more are 0.
    """
    figure, axes = canvas.new((6, 4))
    losses = {name: metrics[name] for name in CURVES if name in metrics}
    # A line through a single point is invisible.
    single = "o" if len(metrics["epoch"]) == 1 else None
    for name, values in losses.items():
        label, style = CURVES[name]
        axes.plot(metrics["epoch"], values, label=label, marker=single, **style)

    split, best = best_epoch(metrics, experiment)
    axes.plot(
        metrics["epoch"][best],
        losses[f"{split}_loss"][best],
        color="black",
        marker="o",
        markersize=8,
        markerfacecolor="none",
        linestyle="none",
        label=f"best {split} loss: epoch {metrics['epoch'][best]:.0f}",
    )
    axes.set(
        xlabel="epoch",
        ylabel=f"loss ({experiment.loss.replace('_', ' ')})",
        title="Learning curve",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))

    positive = np.concatenate(list(losses.values())) > 0
    if np.mean(positive) > 0.5:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainNumbers())
        axes.yaxis.set_minor_formatter(PlainNumbers())
    axes.legend(frameon=False)
    return figure


class PlainNumbers(LogFormatter):
    """Writes 0.02 instead of 2e-02 at the ticks that LogFormatter labels."""

    def __call__(self, x, pos=None):
        """Returns the label of the tick at x."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def best_epoch(
    metrics: Mapping[str, np.ndarray], experiment: Experiment
) -> tuple[str, int]:
    """Returns (split that decides, index of its best epoch).

    The split is validation if there is one, else test. With early stopping it is the
    epoch whose parameters were kept.
    """
    split = "validation" if "validation_loss" in metrics else "test"
    # --min_delta counts only where early stopping has used it.
    min_delta = experiment.min_delta if experiment.patience else 0.0
    stopping = EarlyStopping(experiment.patience, min_delta)
    for loss in metrics[f"{split}_loss"]:
        stopping.improves(float(loss))
    return split, stopping.best_epoch
