"""A recording of training, step by step: a public format that any training script can write.

A trace is a folder:

    meta.json                     version, stack, precision, world_size, steps planned, flags, versions
    step_000000.safetensors       one a step, in order from 0

Each step file is a flat mapping of canonical (Flax) names to arrays:

    batch/ids                     [samples] int32: which samples, in order
    params/NAME                   master parameters before the step
    batch_stats/NAME              running statistics of batch normalization before the step
    moments/first/NAME, moments/second/NAME   optimizer moments before the step
    optimizer_step                () int32: updates applied before the step
    loss                          () float32: mean over the batch, unscaled
    grads/NAME                    unscaled gradients of the mean loss, averaged over ranks, before clipping
    grad_norm                     () float32: global l2 norm of `grads`; inf on an overflow
    loss_scale                    () float32: the scale that multiplied this step's loss
    skipped                       () bool: the step overflowed and changed nothing
    learning_rate                 () float32
    updated/NAME                  master parameters after the step
    updated_batch_stats/NAME      running statistics after the step
    updated_moments/first/NAME, updated_moments/second/NAME   moments after the step

`--record=losses` keeps batch/ids and the scalars, `params` adds parameters and moments,
`full` adds the gradients. A step file appears whole or not at all, so a killed run leaves
a trace that is readable up to its last whole step.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxnn.experiment import records
from jaxnn.experiment.config import UserError

VERSION = 1
LEVELS = {
    "losses": ("batch", "loss", "grad_norm", "loss_scale", "skipped", "learning_rate", "optimizer_step"),
    "params": ("params", "batch_stats", "moments", "updated", "updated_batch_stats", "updated_moments"),
    "full": ("grads",),
}


class Writer:
    """Writes a trace.

    Args:
      folder: made if missing; must not hold a trace.
      level: "losses", "params" or "full".
      meta: what the run was: stack, precision, world_size, flags, versions.
    """

    def __init__(self, folder: pathlib.Path, level: str, meta: Mapping[str, Any]):
        self._folder = folder
        self._kinds = _kinds(level)
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(json.dumps({"version": VERSION, "level": level, **meta}, indent=2) + "\n")

    def write(self, step: int, tensors: Mapping[str, Any]) -> None:
        """Writes one step; tensors of kinds beyond the level are left out.

        Args:
          step: 0-based.
          tensors: a mapping, nested or flat; nested keys are joined by "/".
        """
        flat = {name: array for name, array in flatten(tensors).items() if name.split("/")[0] in self._kinds}
        path = self._folder / f"step_{step:06d}.safetensors"
        records.write_arrays(path, flat)


class Reader:
    """Reads a trace.

    Args:
      folder: as `Writer` made it.

    Raises:
      UserError: no trace there, or one of another version.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        try:
            self.meta: dict[str, Any] = dict(json.loads((folder / "meta.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder / 'meta.json'}: no readable trace there: {error}") from None
        if self.meta.get("version") != VERSION:
            raise UserError(f"{folder}: trace version {self.meta.get('version')}, this program reads {VERSION}")

    def __len__(self) -> int:
        """Whole steps, counted from 0 without a gap."""
        step = 0
        while (self._folder / f"step_{step:06d}.safetensors").exists():
            step += 1
        return step

    def read(self, step: int) -> dict[str, np.ndarray]:
        """One step's tensors by flat name.

        Raises:
          UserError: the step is missing or damaged.
        """
        return records.read_arrays(self._folder / f"step_{step:06d}.safetensors", f"step {step}")


def grad_norm(grads: Iterable[np.ndarray], skipped: bool) -> np.float32:
    """The trace's `grad_norm`: the gradients' global l2 norm, summed in float64; inf for a skipped step."""
    return np.float32(np.inf if skipped else np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads)))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def select(flat: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """The tensors under one kind, without its prefix: select(step, "grads") -> {"output/bias": ...}."""
    return {name.removeprefix(f"{kind}/"): value for name, value in flat.items() if name.startswith(f"{kind}/")}


def _kinds(level: str) -> tuple[str, ...]:
    names = list(LEVELS)
    return sum((LEVELS[name] for name in names[: names.index(level) + 1]), ())
