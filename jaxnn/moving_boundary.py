"""How the regions of the classes move while a network of two features learns."""

import pathlib

import jax
import numpy as np

from jaxnn import checkpoint, finished_run
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, trace
from jaxnn.experiment.results.plots import animation, boundary
from jaxnn.experiment.results.plots.animation import Frame

FEWEST = 2
"""Checkpoints that show a movement."""


def write(workdir: str, path: pathlib.Path) -> None:
    """Writes a GIF of the regions of a run's classes after each update that is known.

    Args:
      workdir: run directory of a finished run of either stack.
      path: path of the GIF.

    Raises:
      UserError: there is no such run, its inputs are not two numbers, or it has neither
        recorded parameters nor checkpoints to draw from.
    """
    run = finished_run.load(workdir)
    data = load_dataset(run.experiment)
    if not boundary.is_plane(data):
        raise UserError("boundary: RUN must classify points of two features")
    frames = _frames(pathlib.Path(workdir))
    apply = jax.jit(run.at)

    def outputs(frame: Frame, inputs: np.ndarray) -> np.ndarray:
        return np.asarray(apply(frame.params, frame.batch_stats, inputs))

    animation.animate(data, frames, outputs, path)


def _frames(folder: pathlib.Path) -> list[Frame]:
    """Returns the network as it learned: every update, or else every checkpoint."""
    # A trace says nothing of running statistics; checkpoints do.
    has_statistics = (folder / artifacts.BATCH_STATS).exists()
    frames = [] if has_statistics else _recorded(folder / "trace")
    frames = frames or _kept(folder)
    if len(frames) >= FEWEST:
        return frames
    record = "" if has_statistics else "--record=params, or with "
    because = " (a trace lacks its running statistics)" if has_statistics else ""
    raise UserError(
        f"boundary: RUN has nothing to draw from{because}; train in JAX with "
        f"{record}--checkpoint_every=1 --keep={animation.MOST_FRAMES}"
    )


def _recorded(folder: pathlib.Path) -> list[Frame]:
    return animation.read_frames(trace.Reader(folder)) if folder.exists() else []


def _kept(folder: pathlib.Path) -> list[Frame]:
    """Returns the networks of the checkpoints that can be read."""
    return [
        Frame(step, network.params, animation.NO_IDS, network.batch_stats)
        for step in checkpoint.steps(folder)
        if (network := checkpoint.read_network(folder, step))
    ]
