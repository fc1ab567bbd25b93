"""The decision boundary of a linear classifier as it learns, from a recording of its
updates."""

import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib.animation import PillowWriter

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import trace
from jaxnn.experiment.results.plots import canvas
from jaxnn.experiment.results.plots.boundary import Plane

MOST_FRAMES, SECONDS = 60, 10
MOST_RINGS = 16
"""Samples of a batch that are still worth showing one by one."""

KERNEL, BIAS = "output/kernel", "output/bias"


class Frame(NamedTuple):
    """The classifier after an update.

    Attributes:
      update: how many steps have been taken.
      kernel: [2, outputs].
      bias: [outputs].
      ids: the training samples of the last step.
    """

    update: int
    kernel: np.ndarray
    bias: np.ndarray
    ids: np.ndarray


def write(data: Dataset, folder: pathlib.Path, path: pathlib.Path) -> None:
    """Writes the animation, if the recording holds the parameters of a linear
    classifier; else nothing.

    Args:
      data: fulfils `boundary.is_plane`.
      folder: of the trace.
      path: of the GIF.
    """
    frames = thinned(read_frames(trace.Reader(folder)))
    if not frames:
        return
    plane, points = Plane(data), canvas.unscaled(data, data.train_inputs)
    plane.scatter(data.train_inputs, data.train_targets, size=25, labels=True)
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
    plane.axes.set_title(" ")
    plane.figure.draw_without_rendering()
    plane.figure.set_layout_engine(
        "none"
    )  # as it is now: arranging each frame anew takes most of the time
    frames_per_second = max(1, len(frames) // SECONDS)
    writer = PillowWriter(fps=frames_per_second)
    with writer.saving(plane.figure, path, dpi=80):
        for frame in [
            *frames,
            *frames[-1:] * frames_per_second,
        ]:  # the last stays for a second more
            plane.show(plane.grid @ frame.kernel + frame.bias)
            rings.set_offsets(
                points[frame.ids] if len(frame.ids) <= MOST_RINGS else np.empty((0, 2))
            )
            plane.axes.set_title(
                f"Decision boundary after update {frame.update} of {frames[-1].update}"
            )
            writer.grab_frame()


def read_frames(reader: trace.Reader) -> list[Frame]:
    """The classifier before the first update and after each; empty if it is not a
    linear one of two features."""
    frames = []
    for number in range(len(reader)):
        step = reader.read(number)
        if (
            trace.select(step, "params").keys() != {KERNEL, BIAS}
            or len(step[f"params/{KERNEL}"]) != 2
        ):
            return []
        if not frames:
            frames.append(
                Frame(
                    0,
                    step[f"params/{KERNEL}"],
                    step[f"params/{BIAS}"],
                    np.array([], int),
                )
            )
        frames.append(
            Frame(
                number + 1,
                step[f"updated/{KERNEL}"],
                step[f"updated/{BIAS}"],
                step["batch/ids"],
            )
        )
    return frames


def thinned(frames: list[Frame]) -> list[Frame]:
    """At most `MOST_FRAMES` frames, the first and the last among them: those that
    change nothing go first."""
    kept = [
        frame
        for before, frame in zip([None, *frames], frames[:-1])
        if before is None or not _equal(before, frame)
    ]
    kept += frames[-1:]
    chosen = np.unique(
        np.linspace(0, len(kept) - 1, min(len(kept), MOST_FRAMES)).round().astype(int)
    )
    return [kept[index] for index in chosen]


def _equal(before: Frame, after: Frame) -> bool:
    return np.array_equal(before.kernel, after.kernel) and np.array_equal(
        before.bias, after.bias
    )
