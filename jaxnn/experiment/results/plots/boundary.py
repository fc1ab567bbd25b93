"""Which class a network gives to each point of a plane of two features."""

from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jaxnn.experiment.data.dataset import BINARY, MULTICLASS, TABLE, Dataset
from jaxnn.experiment.results import report
from jaxnn.experiment.results.plots import canvas

SIDE = 200
"""Grid points along each feature."""

MARGIN = 0.1
MARKERS = "os^DvPX*<>"
MOST_POINTS = 500


def is_plane(data: Dataset) -> bool:
    """Whether the data set tells classes apart by two features, and is held in memory."""
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
    """The regions of the classes behind the samples, those of the test split large.

    Args:
      data: fulfils `is_plane`.
      predict: [n, 2] inputs -> [n, outputs].
    """
    plane = Plane(data)
    plane.show(predict(plane.grid))
    both = not np.array_equal(data.train_inputs, data.test_inputs)
    if both:
        plane.scatter(data.train_inputs, data.train_targets, size=12)
    plane.scatter(data.test_inputs, data.test_targets, size=45, labels=True)
    plane.legend()
    plane.axes.set_title(
        "Decision boundary" + (" (large: test, small: training)" if both else "")
    )
    return plane.figure


class Plane:
    """The picture of two features, in the units that they were measured in.

    Args:
      data: fulfils `is_plane`.

    Attributes:
      figure, axes: what is drawn.
      grid: [SIDE^2, 2] float32 inputs of the network, row by row from below.
    """

    def __init__(self, data: Dataset):
        self._data, self._shown = data, []
        self.figure, self.axes = canvas.new((6, 5))
        names = data.feature_names or ("first feature", "second feature")
        self.axes.set(xlabel=names[0], ylabel=names[1])
        inputs = np.concatenate([data.train_inputs, data.test_inputs]).astype(
            np.float64
        )
        low, high = inputs.min(axis=0), inputs.max(axis=0)
        margin = np.where(high > low, MARGIN * (high - low), 0.5)
        x, y = np.linspace(low - margin, high + margin, SIDE).T
        self.grid = (
            np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
        )
        self._x, self._y = canvas.unscaled(data, np.stack([x, y], axis=1)).T

    def show(self, outputs: np.ndarray) -> None:
        """Fills the regions, in place of those shown before.

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
        """Draws samples by class, the first `MOST_POINTS` of them; with `labels`, the
        legend will name them."""
        points, classes = (
            canvas.unscaled(self._data, inputs[:MOST_POINTS]),
            targets.reshape(-1)[:MOST_POINTS],
        )
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
        """Names what has a label, below the axes."""
        handles, labels = self.axes.get_legend_handles_labels()
        self.figure.legend(
            handles,
            labels,
            frameon=False,
            loc="outside lower center",
            ncols=min(len(labels), 5),
        )

    def _tones(self, low: float, high: float) -> np.ndarray:
        return matplotlib.colormaps["Blues"](
            np.linspace(low, high, len(self._data.class_names))
        )


def margins(outputs: np.ndarray) -> np.ndarray:
    """By how much each class's score is above the best other: [n, outputs] -> [n,
    outputs]; one score is its own."""
    if outputs.shape[1] == 1:
        return outputs
    ordered = np.sort(outputs, axis=1)
    best, second = ordered[:, -1:], ordered[:, -2:-1]
    return outputs - np.where(outputs == best, second, best)


def _outlines(axes: Axes, x: np.ndarray, y: np.ndarray, above: np.ndarray) -> list:
    columns = [
        column.reshape(SIDE, SIDE)
        for column in above.T
        if column.min() < 0 < column.max()
    ]
    return [
        axes.contour(x, y, column, levels=[0], colors="black", linewidths=1, zorder=1)
        for column in columns
    ]
