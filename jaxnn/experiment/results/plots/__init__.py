"""Plots of a finished run: the learning curve and those of its task.

All of them are readable in grayscale.
"""

import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxnn.experiment import traits
from jaxnn.experiment.catalogue import BINARY, MULTICLASS, REGRESSION
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import artifacts, diagnostics
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import report
from jaxnn.experiment.results.plots import boundary, canvas
from jaxnn.experiment.results.plots.confusion import MOST_CLASSES, confusion_matrix
from jaxnn.experiment.results.plots.diagnosis_maps import picture
from jaxnn.experiment.results.plots.functions import (
    approximation,
    fit_line,
    forecast,
    predicted_over_true,
)
from jaxnn.experiment.results.plots.learning import learning_curve
from jaxnn.experiment.results.plots.line import loss_surface, parameters

Predict = Callable[[np.ndarray], np.ndarray]


def draw(
    experiment: Experiment,
    data: Dataset,
    workdir: pathlib.Path,
    params: Mapping[str, np.ndarray],
    outputs: np.ndarray,
    predict: Predict | None = None,
) -> None:
    """Draws all plots of a finished run into plots/.

    Args:
      experiment: experiment that ran.
      data: its data set.
      workdir: run directory with metrics.csv, and trace/ if the run was recorded.
      params: flat master parameters.
      outputs: [test samples, ...] outputs of the trained network.
      predict: inputs [n, ...] -> outputs [n, ...] of the trained network; None: leave
        out the plots that need it.
    """
    metrics = artifacts.read_metrics(workdir)
    figures = {"learning_curve": learning_curve(metrics, experiment)}
    if data.task == REGRESSION:
        figures |= _regression(experiment, data, params, outputs)
    elif data.task in (BINARY, MULTICLASS):
        figures |= _classes(data, outputs, predict)
    # An older version's run has no such columns.
    if "weight" in metrics:
        figures["parameters"] = parameters(metrics, data)
        figures["loss_surface"] = loss_surface(metrics, data)
    found = diagnostics.read(workdir)
    if found:
        canvas.save(picture(found), workdir / artifacts.PICTURE)
    folder = workdir / "plots"
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        canvas.save(figure, folder / f"{name}.png")
    if boundary.is_plane(data) and (workdir / "trace").exists():
        # Most runs have nothing to animate.
        from jaxnn.experiment.results.plots import animation

        animation.write(data, workdir / "trace", folder / "decision_boundary.gif")


def _regression(
    experiment: Experiment,
    data: Dataset,
    params: Mapping[str, np.ndarray],
    outputs: np.ndarray,
) -> dict[str, Figure]:
    if traits.fits_line(experiment):
        return {"fit": fit_line(data, *report.fitted_line(params))}
    if experiment.dataset == "approximation":
        return {"approximation": approximation(data, outputs, experiment.function)}
    if experiment.dataset == "sine":
        return {"forecast": forecast(data, outputs)}
    return {"predicted_over_true": predicted_over_true(data, outputs)}


def _classes(
    data: Dataset, outputs: np.ndarray, predict: Predict | None
) -> dict[str, Figure]:
    figures = {}
    if len(data.class_names) <= MOST_CLASSES:
        figures["confusion_matrix"] = confusion_matrix(
            data, report.predicted_classes(data, outputs)
        )
    if predict and boundary.is_plane(data):
        figures["decision_boundary"] = boundary.decision_boundary(data, predict)
    return figures
