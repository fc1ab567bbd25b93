"""Saves and restores the whole training state at an epoch's end. Twin of
jaxnn/checkpoint.py.

A checkpoint is DeepSpeed's own, the folder `checkpoints/step_000000300`;
`checkpoints/latest` names the newest whole one.
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
"""Checkpoints that are kept unless `--keep` says otherwise."""
FOLDER = "checkpoints"
PREFIX = "step"
DIGITS = 9
LATEST = "latest"


def save(workdir: pathlib.Path, engine: Any, keep: int = KEPT) -> None:
    """Writes a checkpoint and removes all but the newest; every rank takes part.

    Args:
      workdir: run directory, the same on every rank.
      engine: as from `engine.initialize`.
      keep: number of checkpoints to keep.
    """
    folder = _folder(workdir, engine.global_steps)
    engine_state.save(engine, folder.parent, folder.name)
    if engine.global_rank == 0:
        # Not before every rank has written its files: without one of them a checkpoint
        # cannot be restored.
        artifacts.write_text(folder.parent / LATEST, folder.name)
        for step in _written(workdir)[:-keep]:
            shutil.rmtree(_folder(workdir, step))


def restore(workdir: pathlib.Path, engine: Any, before: int) -> int:
    """Loads the newest checkpoint into the engine, on every rank; returns its steps.

    Args:
      workdir: run directory.
      engine: fresh, as from `engine.initialize`.
      before: only checkpoints of fewer steps count.

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
    # DeepSpeed loads the state, but `deepspeed_files.read` reads the files for it: a
    # checkpoint runs no code.
    engine_state.load(engine, folder.parent, folder.name, deepspeed_files.read)
    return _step(folder.name)


def newest(workdir: pathlib.Path, before: int | None = None) -> pathlib.Path:
    """Returns the folder of the newest whole checkpoint.

    Args:
      workdir: run directory.
      before: only checkpoints of fewer steps count; None for all.

    Raises:
      UserError: there is none.
    """
    latest = workdir / FOLDER / LATEST
    tag = latest.read_text().strip() if latest.exists() else ""
    # A folder of more steps than `latest` was being written when the run was killed.
    found = [
        step
        for step in _written(workdir)
        if step <= _step(tag) and (before is None or step < before)
    ]
    if not found or not (latest.parent / tag).is_dir():
        raise UserError(
            f"--resume: {workdir} holds no checkpoint; train with "
            "--checkpoint_every=N, or --overwrite it"
        )
    return _folder(workdir, found[-1])


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / FOLDER / f"{PREFIX}_{step:0{DIGITS}d}"


def _step(tag: str) -> int:
    """Returns the step in a checkpoint's name; -1 if it is none."""
    match = re.fullmatch(rf"{PREFIX}_(\d+)", tag)
    return int(match[1]) if match else -1


def _written(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of all checkpoints, whole or not, in order."""
    # The separator at the end leaves out files.
    folders = (workdir / FOLDER).glob(f"{PREFIX}_*{os.sep}")
    steps = [_step(folder.name) for folder in folders]
    return sorted(step for step in steps if step >= 0)
