"""Animation of the decision boundary of a classifier."""

import pathlib
from collections.abc import Callable, Mapping
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
      params: flat parameters.
      ids: [samples] int, the training samples of the last step; empty if not known.
      batch_stats: flat running statistics, where the network has them.
    """

    update: int
    params: Mapping[str, np.ndarray]
    ids: np.ndarray
    batch_stats: Mapping[str, np.ndarray] = {}


NO_IDS = np.array([], int)
Outputs = Callable[[Frame, np.ndarray], np.ndarray]
"""(frame, inputs [n, 2]) -> outputs [n, ...]."""


def write(data: Dataset, folder: pathlib.Path, path: pathlib.Path) -> None:
    """Writes a GIF; nothing if the trace holds no linear classifier's parameters.

    Args:
      data: data set for which `boundary.is_plane` is True.
      folder: folder of the trace.
      path: path of the GIF.
    """
    reader = trace.Reader(folder)
    # The first step says so; those of another network need not be read.
    if len(reader) and is_linear(trace.select(reader.read(0), "params")):
        animate(data, read_frames(reader), linear_outputs, path)


def is_linear(params: Mapping[str, np.ndarray]) -> bool:
    """Returns True if the network is one dense layer on two features."""
    return params.keys() in ({KERNEL, BIAS}, {KERNEL}) and len(params[KERNEL]) == 2


def linear_outputs(frame: Frame, inputs: np.ndarray) -> np.ndarray:
    """Returns the outputs of one dense layer."""
    params = frame.params
    return inputs @ params[KERNEL] + params.get(BIAS, NO_BIAS)


def animate(
    data: Dataset, frames: list[Frame], outputs: Outputs, path: pathlib.Path
) -> None:
    """Writes a GIF of the regions of the classes after each update.

    Args:
      data: data set for which `boundary.is_plane` is True.
      frames: one at least; `thinned` ones are shown.
      outputs: the network.
      path: path of the GIF.
    """
    frames = thinned(frames)
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
            plane.show(outputs(frame, plane.grid))
            few = len(frame.ids) <= MOST_RINGS
            rings.set_offsets(points[frame.ids] if few else np.empty((0, 2)))
            plane.axes.set_title(
                f"Decision boundary after update {frame.update} of {frames[-1].update}"
            )
            writer.grab_frame()


def read_frames(reader: trace.Reader) -> list[Frame]:
    """Returns the classifier before the first update and after each update.

    The list is empty if the trace holds no parameters.
    """
    frames = []
    for number in range(len(reader)):
        step = reader.read(number)
        before = trace.select(step, "params")
        if not before:
            return []
        if not frames:
            frames.append(Frame(0, before, NO_IDS))
        after = trace.select(step, "updated")
        frames.append(Frame(number + 1, after, step["batch/ids"]))
    return frames


def thinned(frames: list[Frame]) -> list[Frame]:
    """Returns at most `MOST_FRAMES` frames, the first and the last among them."""
    # Frames that change nothing go first: a perceptron updates only on errors.
    kept = [
        frame
        for before, frame in zip([None, *frames], frames[:-1])
        if before is None or not equal(before, frame)
    ]
    kept += frames[-1:]
    count = min(len(kept), MOST_FRAMES)
    chosen = np.unique(np.linspace(0, len(kept) - 1, count).round().astype(int))
    return [kept[index] for index in chosen]


def equal(before: Frame, after: Frame) -> bool:
    """Returns True if an update changed nothing."""
    pairs = ((before.params[name], array) for name, array in after.params.items())
    return all(np.array_equal(old, new) for old, new in pairs)
