"""Saves and restores the whole training state at an epoch's end. Twin of
jaxnn/checkpoint.py.

A checkpoint is DeepSpeed's own, `checkpoints/step_000000300/`; `checkpoints/latest`
names the newest whole one.
"""

import os
import pathlib
import re
import shutil
from typing import Any

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from torch_ref import deepspeed_files, engine_state

KEPT = 2
LATEST = "latest"
TAG = re.compile(r"step_(\d+)")


def save(workdir: pathlib.Path, engine: Any, keep: int = KEPT) -> None:
    """Writes a checkpoint and removes all but the newest; every rank takes part.

    Args:
      workdir: of the run, the same on every rank.
      engine: of `engine.initialize`.
      keep: how many.
    """
    folder = workdir / "checkpoints"
    tag = f"step_{engine.global_steps:09d}"
    engine_state.save(engine, folder, tag)
    if engine.global_rank == 0:
        artifacts.write_text(
            folder / LATEST, tag
        )  # only now: a checkpoint without a file of some rank is none
        for old in _folders(workdir)[:-keep]:
            shutil.rmtree(old)


def restore(workdir: pathlib.Path, engine: Any, before: int) -> int:
    """Puts the newest checkpoint into the engine, on every rank; returns its steps.

    DeepSpeed loads it, but reads the files with `deepspeed_files.read`: a checkpoint
    runs no code.

    Args:
      workdir: of the run.
      engine: fresh.
      before: only one of fewer steps.

    Raises:
      UserError: there is none, or one is damaged, of another model or of another number
        of ranks.
    """
    folder = newest(workdir, before)
    checkpoint = deepspeed_files.open_checkpoint(folder)
    deepspeed_files.check(checkpoint, engine.module)
    if checkpoint.common["dp_world_size"] != engine.dp_world_size:
        raise UserError(
            f"--resume: {folder} was written by {checkpoint.common['dp_world_size']} "
            f"ranks, these are {engine.dp_world_size}; start as many, with the "
            "deepspeed launcher's --num_accelerators"
        )
    engine_state.load(engine, folder.parent, folder.name, deepspeed_files.read)
    return _steps(folder.name)


def newest(workdir: pathlib.Path, before: int | None = None) -> pathlib.Path:
    """The folder of the newest whole checkpoint; of fewer steps than `before`, if it is
    given.

    Raises:
      UserError: there is none.
    """
    latest = workdir / "checkpoints" / LATEST
    tag = latest.read_text().strip() if latest.exists() else ""
    whole = [
        folder
        for folder in _folders(workdir)
        if _steps(folder.name) <= _steps(tag)
        and (before is None or _steps(folder.name) < before)
    ]
    if not whole or not (latest.parent / tag).is_dir():
        raise UserError(
            f"--resume: {workdir} holds no checkpoint; train with "
            "--checkpoint_every=N, or --overwrite it"
        )
    return whole[-1]


def _steps(tag: str) -> int:
    """Of a checkpoint's name; -1 if it is none."""
    named = TAG.fullmatch(tag)
    return int(named[1]) if named else -1


def _folders(workdir: pathlib.Path) -> list[pathlib.Path]:
    return sorted((workdir / "checkpoints").glob("step_*" + os.sep))
