"""Plot of the decision boundary between classes in the plane of two features."""

from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jaxnn.experiment.catalogue import BINARY, MULTICLASS, TABLE
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.results import report
from jaxnn.experiment.results.plots import canvas

# Grid points along each feature.
SIDE = 200

# Space around the samples, as a share of their range.
MARGIN = 0.1

# One marker per class, so that classes differ without colour.
MARKERS = "os^DvPX*<>"
MOST_POINTS = 500


def is_plane(data: Dataset) -> bool:
    """Returns True if the data set has classes and two features, and is in memory."""
    return (
        data.task in (BINARY, MULTICLASS)
        and data.kind == TABLE
        and data.train_inputs.shape[1:] == (2,)
        and isinstance(data.train_inputs, np.ndarray)
        and len(data.class_names) <= len(MARKERS)
    )


def decision_boundary(
    data: Dataset, predict: Callable[[np.ndarray], np.ndarray]
) -> Figure:
    """Regions of the classes behind the samples; test samples are large.

    Args:
      data: data set for which `is_plane` is True.
      predict: [n, 2] inputs -> [n, outputs] of the network.
    """
    plane = Plane(data)
    plane.show(predict(plane.grid))
    # The gates are tested on their training samples.
    train_inputs = np.asarray(data.train_inputs)
    test_inputs = np.asarray(data.test_inputs)
    both = not np.array_equal(train_inputs, test_inputs)
    if both:
        plane.scatter(train_inputs, data.train_targets, size=12)
    plane.scatter(test_inputs, data.test_targets, size=45, labels=True)
    plane.legend()
    title = "Decision boundary"
    if both:
        title += " (large: test, small: training)"
    plane.axes.set_title(title)
    return plane.figure


class Plane:
    """Figure of two features, in the units in which they were measured.

    Args:
      data: data set for which `is_plane` is True.

    Attributes:
      figure: figure.
      axes: its axes.
      grid: [SIDE^2, 2] float32 inputs of the network, row by row from below.
    """

    def __init__(self, data: Dataset):
        self._data = data
        self._shown = []
        self.figure, self.axes = canvas.new((6, 5))
        names = data.feature_names or ("first feature", "second feature")
        self.axes.set(xlabel=names[0], ylabel=names[1])
        inputs = np.concatenate([data.train_inputs, data.test_inputs]).astype(
            np.float64
        )
        low = inputs.min(axis=0)
        high = inputs.max(axis=0)
        margin = np.where(high > low, MARGIN * (high - low), 0.5)
        x, y = np.linspace(low - margin, high + margin, SIDE).T

        # The network takes scaled inputs, the axes show the units of the data.
        grid = np.stack(np.meshgrid(x, y), axis=-1)
        self.grid = grid.reshape(-1, 2).astype(np.float32)
        self._x, self._y = canvas.unscaled(data, np.stack([x, y], axis=1)).T

    def show(self, outputs: np.ndarray) -> None:
        """Draws the regions of the classes; removes those drawn before.

        Args:
          outputs: [SIDE^2, outputs] of the network on `grid`.
        """
        for artist in self._shown:
            artist.remove()
        classes = report.predicted_classes(self._data, outputs).reshape(SIDE, SIDE)
        extent = (self._x[0], self._x[-1], self._y[0], self._y[-1])
        image = self.axes.imshow(
            classes,
            ListedColormap(self._tones(0.06, 0.45)),
            origin="lower",
            extent=extent,
            aspect="auto",
            vmin=0,
            vmax=len(self._data.class_names) - 1,
            zorder=0,
        )
        self._shown = [image, *_outlines(self.axes, self._x, self._y, margins(outputs))]

    def scatter(
        self, inputs: np.ndarray, targets: np.ndarray, size: float, labels: bool = False
    ) -> None:
        """Draws the first `MOST_POINTS` samples by class.

        Args:
          inputs: [n, 2] scaled inputs.
          targets: [n] or [n, 1] classes.
          size: area of a marker in points^2.
          labels: True to name the classes in the legend.
        """
        points = canvas.unscaled(self._data, inputs[:MOST_POINTS])
        classes = targets.reshape(-1)[:MOST_POINTS]
        for number, (name, tone) in enumerate(
            zip(self._data.class_names, self._tones(0.1, 1.0))
        ):
            self.axes.scatter(
                *points[classes == number].T,
                s=size,
                marker=MARKERS[number],
                color=tone,
                edgecolors="black",
                linewidths=0.6,
                label=name if labels else None,
            )

    def legend(self) -> None:
        """Draws a legend below the axes."""
        handles, labels = self.axes.get_legend_handles_labels()
        self.figure.legend(
            handles,
            labels,
            frameon=False,
            loc="outside lower center",
            ncols=min(len(labels), 5),
        )

    def _tones(self, low: float, high: float) -> np.ndarray:
        """Returns a blue per class, between two places of the colour map."""
        return matplotlib.colormaps["Blues"](
            np.linspace(low, high, len(self._data.class_names))
        )


def margins(outputs: np.ndarray) -> np.ndarray:
    """Score of each class minus the best other score: [n, outputs] -> [n, outputs].

    It is above 0 in the region of the class. A single score is a margin already.
    """
    if outputs.shape[1] == 1:
        return outputs
    ordered = np.sort(outputs, axis=1)
    best = ordered[:, -1:]
    second = ordered[:, -2:-1]
    return outputs - np.where(outputs == best, second, best)


def _outlines(axes: Axes, x: np.ndarray, y: np.ndarray, above: np.ndarray) -> list:
    """Draws a line where a margin is 0."""
    # matplotlib warns about a contour at a level that does not occur.
    columns = [
        column.reshape(SIDE, SIDE)
        for column in above.T
        if column.min() < 0 < column.max()
    ]
    return [
        axes.contour(x, y, column, levels=[0], colors="black", linewidths=1, zorder=1)
        for column in columns
    ]
