"""A finished run read back: its network, ready to be applied."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import models, train_step
from jaxnn.experiment.data import description
from jaxnn.experiment.data.dataset import LANGUAGE, Signature
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, trace
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment


class FinishedRun(NamedTuple):
    """A trained network and what its inputs and outputs mean.

    Attributes:
      experiment: that trained it.
      description: of its data.
      forward: inputs [n, ...], scaled -> outputs [n, ...], inside or outside `jax.jit`.
    """

    experiment: Experiment
    description: Description
    forward: Callable[[jax.Array | np.ndarray], jax.Array]


def load(workdir: str) -> FinishedRun:
    """Reads a run of either stack back from its folder.

    Raises:
      UserError: no finished run there, or one whose files do not fit together.
    """
    folder = pathlib.Path(workdir)
    if not workdir or not (folder / artifacts.SUMMARY).exists():
        raise UserError(
            f"--workdir: {workdir or 'not given'} holds no finished run; give the "
            "folder that python -m jaxnn.train printed at its end"
        )
    experiment, _ = command_line.parse(
        ["trained", f"--flagfile={folder / artifacts.FLAGS}"], default_precision="fp32"
    )
    described = description.from_json(
        _read(folder / artifacts.DATA), str(folder / artifacts.DATA)
    )
    params = trace.unflatten(
        artifacts.read_arrays(folder / artifacts.PARAMS, "--workdir")
    )
    model = models.build(experiment, _signature(described, params))
    has_stats = (folder / artifacts.BATCH_STATS).exists()
    stats = (
        artifacts.read_arrays(folder / artifacts.BATCH_STATS, "--workdir")
        if has_stats
        else {}
    )
    forward = functools.partial(train_step.forward, experiment, model)
    return FinishedRun(
        experiment,
        described,
        lambda inputs: forward(params, trace.unflatten(stats), inputs),
    )


def _signature(described: Description, params: train_step.Params) -> Signature:
    return Signature(
        described.input_shape,
        len(params["output"]["bias"]),
        len(described.vocabulary),
        described.task == LANGUAGE,
    )


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--workdir: cannot read {path}: {error}") from None
