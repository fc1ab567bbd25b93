"""Saves and restores the whole training state at an epoch's end, so that a resumed run goes on bit for bit.

A checkpoint is `checkpoints/epoch_000010.safetensors`: every array of the TrainState by its path.
It appears whole or not at all, and holds no code.
"""

import pathlib

import jax
import numpy as np

from jaxnn.experiment import records
from jaxnn.experiment.config import UserError
from jaxnn.train_step import TrainState

KEPT = 2


def save(workdir: pathlib.Path, epochs: int, state: TrainState) -> None:
    """Writes a checkpoint and removes all but the newest `KEPT`.

    Args:
      workdir: of the run.
      epochs: finished so far.
      state: one copy, on the host.
    """
    folder = workdir / "checkpoints"
    folder.mkdir(exist_ok=True)
    records.write_arrays(folder / f"epoch_{epochs:06d}.safetensors", _by_path(state))
    for old in _checkpoints(workdir)[:-KEPT]:
        old.unlink()


def restore(workdir: pathlib.Path, like: TrainState) -> tuple[int, TrainState]:
    """The newest checkpoint: epochs finished, and the state.

    Args:
      workdir: of the run.
      like: a state of the same shapes and formats.

    Raises:
      UserError: there is none, or one is damaged or of another model.
    """
    found = _checkpoints(workdir)
    if not found:
        raise UserError(f"--resume: {workdir} holds no checkpoint; train with --checkpoint_every=N, or --overwrite it")
    arrays, wanted = records.read_arrays(found[-1], "--resume"), _by_path(like)
    for path in sorted(wanted.keys() | arrays.keys()):
        if path not in arrays or path not in wanted or arrays[path].shape != wanted[path].shape:
            raise UserError(f"--resume: {path} of {found[-1]} is not this experiment's")
    state = jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in wanted])
    return int(found[-1].stem.removeprefix("epoch_")), state


def _checkpoints(workdir: pathlib.Path) -> list[pathlib.Path]:
    return sorted((workdir / "checkpoints").glob("epoch_*.safetensors"))


def _by_path(state: TrainState) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
