"""The learning curve."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.plots import canvas

CURVES = {
    "train_loss": ("training", dict(color=canvas.DARK)),
    "evaluated_train_loss": (
        "training, evaluated",
        dict(color=canvas.DARK, linestyle=":"),
    ),
    "validation_loss": ("validation", dict(color="black", linestyle="-.")),
    "test_loss": ("test", dict(color=canvas.LIGHT, linestyle="--")),
}


def learning_curve(metrics: Mapping[str, np.ndarray], experiment: Experiment) -> Figure:
    """The loss of each split by epoch, the best epoch marked; on a log scale unless
    most losses are 0."""
    figure, axes = canvas.new((6, 4))
    losses = {name: metrics[name] for name in CURVES if name in metrics}
    single = (
        "o" if len(metrics["epoch"]) == 1 else None
    )  # a line through one point shows nothing
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
    if np.mean(np.concatenate(list(losses.values())) > 0) > 0.5:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainNumbers())
        axes.yaxis.set_minor_formatter(PlainNumbers())
    axes.legend(frameon=False)
    return figure


class PlainNumbers(LogFormatter):
    """0.02 where matplotlib writes 2e-02; as many labels as it writes."""

    def __call__(self, x, pos=None):
        """The label of the tick at x."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def best_epoch(
    metrics: Mapping[str, np.ndarray], experiment: Experiment
) -> tuple[str, int]:
    """The split that tells, validation if there is one, else test, and the index of its
    best epoch.

    With early stopping it is the epoch whose parameters were kept.
    """
    split = "validation" if "validation_loss" in metrics else "test"
    watch = EarlyStopping(
        experiment.patience, experiment.min_delta if experiment.patience else 0.0
    )
    for loss in metrics[f"{split}_loss"]:
        watch.improves(float(loss))
    return split, watch.best_epoch
