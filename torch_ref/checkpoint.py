"""Saves and restores the whole training state at an epoch's end. Twin of jaxnn/checkpoint.py.

A checkpoint is DeepSpeed's own, `checkpoints/epoch_000010/`; `checkpoints/latest` names the newest whole one.
"""

import os
import pathlib
import re
import shutil
from typing import Any

from jaxnn.experiment import records
from jaxnn.experiment.config import UserError
from torch_ref import deepspeed_files, engine_state

KEPT = 2
LATEST = "latest"


def save(workdir: pathlib.Path, epochs: int, engine: Any) -> None:
    """Writes a checkpoint and removes all but the newest `KEPT`; every rank takes part.

    Args:
      workdir: of the run, the same on every rank.
      epochs: finished so far.
      engine: of `engine.initialize`.
    """
    folder = workdir / "checkpoints"
    tag = f"epoch_{epochs:06d}"
    engine_state.save(engine, folder, tag)
    if engine.global_rank == 0:
        records.write_text(folder / LATEST, tag)  # only now: a checkpoint without a file of some rank is none
        for old in _checkpoints(workdir)[:-KEPT]:
            shutil.rmtree(old)


def restore(workdir: pathlib.Path, engine: Any) -> int:
    """Puts the newest checkpoint into the engine, on every rank; returns the epochs finished.

    DeepSpeed loads it, but reads the files with `deepspeed_files.read`: a checkpoint runs no code.

    Raises:
      UserError: there is none, or one is damaged, of another model or of another number of ranks.
    """
    folder = newest(workdir)
    checkpoint = deepspeed_files.open_checkpoint(folder)
    deepspeed_files.check(checkpoint, engine.module)
    if checkpoint.common["dp_world_size"] != engine.dp_world_size:
        raise UserError(f"--resume: {folder} was written by {checkpoint.common['dp_world_size']} ranks, these are "
                        f"{engine.dp_world_size}; start as many, with the deepspeed launcher's --num_accelerators")
    engine_state.load(engine, folder.parent, folder.name, deepspeed_files.read)
    return int(folder.name.removeprefix("epoch_"))


def newest(workdir: pathlib.Path) -> pathlib.Path:
    """The folder of the newest whole checkpoint.

    Raises:
      UserError: there is none.
    """
    latest = workdir / "checkpoints" / LATEST
    tag = latest.read_text().strip() if latest.exists() else ""
    if not re.fullmatch(r"epoch_\d+", tag) or not (latest.parent / tag).is_dir():
        raise UserError(f"--resume: {workdir} holds no checkpoint; train with --checkpoint_every=N, or --overwrite it")
    return latest.parent / tag


def _checkpoints(workdir: pathlib.Path) -> list[pathlib.Path]:
    return sorted((workdir / "checkpoints").glob("epoch_*" + os.sep))
