"""Trained networks of a sweep: networks/NUMBER/ holds what a run's workdir holds.

Those are params.safetensors, which `--init_params` reads, and batch_stats.safetensors
with batch normalization.
"""

import pathlib
from typing import NamedTuple

from jaxnn.experiment.files import artifacts, trace
from jaxnn.train_step import Params, TrainState

FOLDER = "networks"


class Network(NamedTuple):
    """What a member has learned.

    Attributes:
      params: parameters, a pytree of NumPy arrays.
      batch_stats: running statistics; empty without batch normalization.
    """

    params: Params
    batch_stats: Params


def write(workdir: pathlib.Path, number: int, state: TrainState) -> None:
    """Writes the network of a member.

    Args:
      workdir: folder of the sweep.
      number: of the member.
      state: its state, on the host.
    """
    folder = workdir / FOLDER / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_params(folder / artifacts.PARAMS, trace.flatten(state.params))
    if state.batch_stats:
        stats = trace.flatten(state.batch_stats)
        artifacts.write_params(folder / artifacts.BATCH_STATS, stats)


def read(workdir: pathlib.Path, number: int) -> Network:
    """Returns the network of a member.

    Raises:
      UserError: it was not written, or is not as it was.
    """
    folder = workdir / FOLDER / str(number)
    params = artifacts.read_params(str(folder / artifacts.PARAMS), "--save_networks")
    path = folder / artifacts.BATCH_STATS
    stats = artifacts.read_params(str(path), "--save_networks") if path.exists() else {}
    return Network(trace.unflatten(params), trace.unflatten(stats))
