"""The tree of arrays as a safetensors file and as an Orbax checkpoint."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from parity.own.tree import Structure

STATE = "state.safetensors"
ORBAX = "orbax"
MARKS = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")
"""Files that Orbax writes into a checkpoint."""
ITEMS = (ORBAX, "default", "state")
"""Folders that a checkpoint of Orbax may lie in, below what is named."""


def write(tree: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes both files of a tree of NumPy arrays."""
    artifacts.write_arrays(folder / STATE, Structure(tree).flatten(tree))
    ocp = _orbax()
    with ocp.StandardCheckpointer() as writer:
        # Orbax wants absolute paths.
        writer.save((folder / ORBAX).resolve(), tree)


def read(name: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of a tree.

    Args:
      name: a folder that `write` filled, a safetensors file, or a checkpoint of Orbax.

    Raises:
      UserError: there is none, or it is damaged.
    """
    if name.is_file() or (name / STATE).is_file():
        return artifacts.read_arrays(name if name.is_file() else name / STATE, "--from")
    place = _orbax_in(name)
    if place:
        return _restored(place)
    raise UserError(
        f"--from: {name} holds neither {STATE} nor a checkpoint of Orbax; give what "
        "parity.convert wrote, or what StandardCheckpointer saved"
    )


def is_tree(name: pathlib.Path) -> bool:
    """Whether `read` would find something there."""
    return (name / STATE).is_file() or _orbax_in(name) is not None


def _orbax_in(name: pathlib.Path) -> pathlib.Path | None:
    places = [name, *(name / item for item in ITEMS)]
    found = (p for p in places if any((p / mark).exists() for mark in MARKS))
    return next(found, None)


def _restored(folder: pathlib.Path) -> dict[str, np.ndarray]:
    ocp = _orbax()
    # Orbax, its storage and its codecs raise anything on a damaged checkpoint.
    try:
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(folder.resolve())
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"--from: cannot read {folder}: {reason}") from None
    if not jax.tree.leaves(tree):
        raise UserError(f"--from: {folder} holds no arrays; give another checkpoint")
    flat = Structure(tree).flatten(tree)
    return {path: np.asarray(array) for path, array in flat.items()}


def _orbax() -> Any:
    import orbax.checkpoint as ocp

    # Orbax logs every save through absl's logger.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    return ocp
