"""Animation of the decision boundary of a linear classifier, from a trace."""

import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib.animation import PillowWriter

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import trace
from jaxnn.experiment.results.plots import canvas
from jaxnn.experiment.results.plots.boundary import Plane

MOST_FRAMES = 60
SECONDS = 10

# Samples of a batch up to which each of them is circled.
MOST_RINGS = 16

KERNEL = "output/kernel"
BIAS = "output/bias"
NO_BIAS = np.zeros(1, np.float32)
"""Under `--nouse_bias`; of one output or of several."""


class Frame(NamedTuple):
    """The classifier after an update.

    Attributes:
      update: number of steps done.
      kernel: [2, outputs].
      bias: [outputs].
      ids: [samples] int, the training samples of the last step.
    """

    update: int
    kernel: np.ndarray
    bias: np.ndarray
    ids: np.ndarray


def write(data: Dataset, folder: pathlib.Path, path: pathlib.Path) -> None:
    """Writes a GIF; nothing if the trace holds no linear classifier's parameters.

    Args:
      data: data set for which `boundary.is_plane` is True.
      folder: folder of the trace.
      path: path of the GIF.
    """
    frames = thinned(read_frames(trace.Reader(folder)))
    if not frames:
        return

    plane = Plane(data)
    inputs = np.asarray(data.train_inputs)
    points = canvas.unscaled(data, inputs)
    plane.scatter(inputs, data.train_targets, size=25, labels=True)
    rings = plane.axes.scatter(
        [],
        [],
        s=110,
        facecolors="none",
        edgecolors="black",
        linewidths=1.5,
        label="last batch",
    )
    plane.legend()

    # The layout is computed once, with room for a title, and then frozen: to arrange
    # every frame anew takes most of the time.
    plane.axes.set_title(" ")
    plane.figure.draw_without_rendering()
    plane.figure.set_layout_engine("none")

    frames_per_second = max(1, len(frames) // SECONDS)
    # The last frame stays for one more second.
    shown = [*frames, *frames[-1:] * frames_per_second]
    writer = PillowWriter(fps=frames_per_second)
    with writer.saving(plane.figure, path, dpi=80):
        for frame in shown:
            plane.show(plane.grid @ frame.kernel + frame.bias)
            few = len(frame.ids) <= MOST_RINGS
            rings.set_offsets(points[frame.ids] if few else np.empty((0, 2)))
            plane.axes.set_title(
                f"Decision boundary after update {frame.update} of {frames[-1].update}"
            )
            writer.grab_frame()


def read_frames(reader: trace.Reader) -> list[Frame]:
    """Returns the classifier before the first update and after each update.

    The list is empty if the trace is not of a linear classifier of two features.
    """
    frames = []
    for number in range(len(reader)):
        step = reader.read(number)
        names = trace.select(step, "params").keys()
        is_linear = names in ({KERNEL, BIAS}, {KERNEL})
        if not is_linear or len(step[f"params/{KERNEL}"]) != 2:
            return []
        if not frames:
            kernel = step[f"params/{KERNEL}"]
            bias = step.get(f"params/{BIAS}", NO_BIAS)
            frames.append(Frame(0, kernel, bias, np.array([], int)))
        kernel = step[f"updated/{KERNEL}"]
        bias = step.get(f"updated/{BIAS}", NO_BIAS)
        frames.append(Frame(number + 1, kernel, bias, step["batch/ids"]))
    return frames


def thinned(frames: list[Frame]) -> list[Frame]:
    """Returns at most `MOST_FRAMES` frames, the first and the last among them."""
    # Frames that change nothing go first: a perceptron updates only on errors.
    kept = [
        frame
        for before, frame in zip([None, *frames], frames[:-1])
        if before is None or not _equal(before, frame)
    ]
    kept += frames[-1:]
    count = min(len(kept), MOST_FRAMES)
    chosen = np.unique(np.linspace(0, len(kept) - 1, count).round().astype(int))
    return [kept[index] for index in chosen]


def _equal(before: Frame, after: Frame) -> bool:
    return np.array_equal(before.kernel, after.kernel) and np.array_equal(
        before.bias, after.bias
    )
