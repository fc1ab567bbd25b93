"""Reads a finished run back: its network, ready to be applied."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import models, train_step
from jaxnn.experiment.catalogue import LANGUAGE
from jaxnn.experiment.data import description
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, trace
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.models import readers
from jaxnn.reading import Reader

Arrays = Mapping[str, np.ndarray]


class FinishedRun(NamedTuple):
    """A trained network and what its inputs and outputs mean.

    Attributes:
      experiment: settings that it was trained with.
      description: description of its data.
      forward: preprocessed inputs [n, ...] -> outputs [n, ...]; may be called inside
        and outside `jax.jit`.
      reader: the network as a reader; None if it is no language model of ours.
      at: (flat parameters, flat running statistics, preprocessed inputs) -> outputs,
        with others than the trained ones.
    """

    experiment: Experiment
    description: Description
    forward: Callable[[jax.Array | np.ndarray], jax.Array]
    reader: Reader | None
    at: Callable[[Arrays, Arrays, np.ndarray], jax.Array]


def load(workdir: str) -> FinishedRun:
    """Reads a run of either stack from its run directory.

    Raises:
      UserError: there is no finished run, or its files do not fit together.
    """
    folder = pathlib.Path(workdir)
    # Only a run that came to its end has a summary.
    if not workdir or not (folder / artifacts.SUMMARY).exists():
        raise UserError(
            f"--workdir: {workdir or 'not given'} holds no finished run; give the "
            "folder that python -m jaxnn.train printed at its end"
        )
    flagfile = f"--flagfile={folder / artifacts.FLAGS}"
    experiment, _ = command_line.parse(["trained", flagfile], default_precision="fp32")
    experiment = artifacts.as_trained(experiment, folder)
    path = folder / artifacts.DATA
    described = description.from_json(_read(path), str(path))

    # Both stacks write parameters under flax's names and layouts.
    arrays = artifacts.read_arrays(folder / artifacts.PARAMS, "--workdir")
    params = trace.unflatten(arrays)
    batch_stats = _read_batch_stats(folder)
    model = models.build(experiment, _signature(described, params))
    forward = functools.partial(train_step.forward, experiment, model)
    is_language = described.task == LANGUAGE
    return FinishedRun(
        experiment,
        described,
        lambda inputs: forward(params, batch_stats, inputs),
        readers.build(experiment, model, params) if is_language else None,
        at=lambda flat, statistics, inputs: forward(
            trace.unflatten(flat), trace.unflatten(statistics), inputs
        ),
    )


def _read_batch_stats(folder: pathlib.Path) -> train_step.Params:
    """Returns the running statistics, empty without batch normalization."""
    path = folder / artifacts.BATCH_STATS
    if not path.exists():
        return {}
    return trace.unflatten(artifacts.read_arrays(path, "--workdir"))


def _signature(described: Description, params: train_step.Params) -> Signature:
    # The head of each of our networks is called `output`; its bias says how many
    # outputs where the description is too old to do so.
    num_outputs = described.num_outputs or len(params["output"]["bias"])
    return Signature(
        described.input_shape,
        num_outputs,
        len(described.vocabulary),
        described.task == LANGUAGE,
    )


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--workdir: cannot read {path}: {error}") from None
