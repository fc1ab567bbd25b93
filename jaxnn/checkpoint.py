"""Saves and restores the whole training state with Orbax, so that a resumed run goes on
bit for bit.

A checkpoint is the folder `checkpoints/step_000000300`: every array of the TrainState
by its path, of the best state so far too under `--patience`, of what the steps of an
unfinished epoch reported, and their digest. It is written while training goes on, under
another name until it is whole, and holds no code.
"""

import contextlib
import hashlib
import logging
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.train_step import TrainState

KEPT = 2
FOLDER, PREFIX, DIGITS = "checkpoints", "step", 9


class Best(NamedTuple):
    """What early stopping would return to.

    Attributes:
      state: of the best epoch so far.
      outputs: [devices, chunks, rows, ...] of the evaluation after it.
    """

    state: TrainState
    outputs: np.ndarray


class Taken(NamedTuple):
    """What the steps of an epoch reported that is not finished.

    Attributes:
      loss: [steps] float.
      learning_rate: [steps] float32.
      skipped: [steps] bool.
    """

    loss: np.ndarray
    learning_rate: np.ndarray
    skipped: np.ndarray


NONE_TAKEN = Taken(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, bool))


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      state: one copy, on the host; its `step` says where the run stands.
      best: under `--patience`.
      taken: of the epoch under way; no steps at the end of one.
    """

    state: TrainState
    best: Best | None = None
    taken: Taken = NONE_TAKEN


class Checkpoints:
    """Writes the checkpoints of a run, in the background, and removes all but the
    newest.

    Args:
      workdir: of the run.
      keep: how many.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = KEPT):
        self._workdir, self._keep, self._manager = workdir, keep, None

    def save(self, saved: Saved) -> None:
        """Begins to write a checkpoint, once the one before is whole.

        Raises:
          UserError: that one could not be written.
        """
        # half a second, which a run without checkpoints does not pay
        import orbax.checkpoint as ocp

        arrays = _by_path(saved)
        _require_room(self._workdir, sum(array.nbytes for array in arrays.values()))
        with _disk(self._workdir):
            self._manager = self._manager or _manager(ocp, self._workdir, self._keep)
            self._manager.save(
                int(saved.state.step),
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(trace.unflatten(arrays)),
                    digest=ocp.args.JsonSave(_digest(arrays)),
                ),
            )

    def close(self) -> None:
        """Waits until all is written; raises as `save` does."""
        if self._manager:
            with _disk(self._workdir):
                self._manager.wait_until_finished()
                self._manager.close()
            self._manager = None


def save(workdir: pathlib.Path, state: TrainState) -> None:
    """Writes one checkpoint and waits for it."""
    checkpoints = Checkpoints(workdir)
    checkpoints.save(Saved(state))
    checkpoints.close()


def restore(workdir: pathlib.Path, like: TrainState) -> TrainState:
    """The state of the newest checkpoint; see `restore_saved`."""
    saved = restore_saved(workdir, like)
    if saved is None:
        raise UserError(
            f"--resume: {workdir} holds no checkpoint; train with "
            "--checkpoint_every=N, or --overwrite it"
        )
    return saved.state


def restore_saved(
    workdir: pathlib.Path, like: TrainState, before: int | None = None
) -> Saved | None:
    """The newest checkpoint that can be read; None if there is none at all.

    Args:
      workdir: of the run.
      like: a state of the same shapes and formats.
      before: only those of fewer steps; None: all.

    Raises:
      UserError: none of them can be read, or one is of another model.
    """
    found = [step for step in steps(workdir) if before is None or step < before]
    for step in reversed(found):
        try:
            arrays = _read(workdir, step)
        # whatever Orbax, its storage and its formats raise on what is not whole
        except Exception as error:
            print(
                f"{_folder(workdir, step)} is damaged and left out: "
                f"{str(error).splitlines()[0]}",
                flush=True,
            )
            continue
        return _saved(arrays, like, _folder(workdir, step))
    if found:
        raise UserError(
            f"--resume: none of the {len(found)} checkpoints in {workdir / FOLDER} can "
            "be read; --overwrite the run"
        )
    return None


def steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the checkpoints that are whole, in order."""
    folders = (workdir / FOLDER).glob(f"{PREFIX}_*")
    return sorted(
        int(match[1])
        for folder in folders
        if (match := re.fullmatch(rf"{PREFIX}_(\d+)", folder.name))
    )


def forget_after(workdir: pathlib.Path, step: int) -> None:
    """Removes the checkpoints of later steps, which a resumed run writes again."""
    for later in steps(workdir):
        if later > step:
            shutil.rmtree(_folder(workdir, later))


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / FOLDER / f"{PREFIX}_{step:0{DIGITS}d}"


def _manager(ocp: Any, workdir: pathlib.Path, keep: int) -> Any:
    """Orbax's, of this process alone: the one that writes."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        step_prefix=PREFIX,
        step_format_fixed_length=DIGITS,
        create=False,
        multiprocessing_options=_alone(ocp),
    )
    (workdir / FOLDER).mkdir(exist_ok=True)
    return ocp.CheckpointManager((workdir / FOLDER).resolve(), options=options)


def _alone(ocp: Any) -> Any:
    """Lets Orbax wait for no other process: only one reads and writes."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix="checkpoint"
    )


def _read(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """The arrays of one checkpoint by path; raises whatever is raised on one that is
    not as it was written."""
    import orbax.checkpoint as ocp

    folder, alone = _folder(workdir, step).resolve(), _alone(ocp)
    handlers = ocp.CompositeCheckpointHandler(
        arrays=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        digest=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    with ocp.Checkpointer(handlers, multiprocessing_options=alone) as reader:
        read = reader.restore(
            folder,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(), digest=ocp.args.JsonRestore()
            ),
        )
    arrays = {
        name: np.asarray(array) for name, array in trace.flatten(read.arrays).items()
    }
    if _digest(arrays) != read.digest:
        raise ValueError("its arrays are not those of its digest")
    return arrays


def _saved(
    arrays: Mapping[str, np.ndarray], like: TrainState, folder: pathlib.Path
) -> Saved:
    """What the arrays are, in the structure of `like`."""
    kinds = {kind: trace.select(arrays, kind) for kind in ("state", "best", "taken")}
    state = _like(kinds["state"], like, folder)
    outputs = kinds["best"].pop("outputs", None)
    best = (
        None if outputs is None else Best(_like(kinds["best"], like, folder), outputs)
    )
    return Saved(state, best, Taken(**kinds["taken"]) if kinds["taken"] else NONE_TAKEN)


def _like(
    arrays: Mapping[str, np.ndarray], like: TrainState, folder: pathlib.Path
) -> TrainState:
    wanted = _leaves(like)
    for path in sorted(wanted.keys() | arrays.keys()):
        if (
            path not in arrays
            or path not in wanted
            or arrays[path].shape != wanted[path].shape
        ):
            raise UserError(f"--resume: {path} of {folder} is not this experiment's")
    return jax.tree.unflatten(
        jax.tree.structure(like), [arrays[path] for path in wanted]
    )


def _by_path(saved: Saved) -> dict[str, np.ndarray]:
    arrays = {f"state/{path}": array for path, array in _leaves(saved.state).items()}
    if saved.best:
        arrays |= {
            f"best/{path}": array for path, array in _leaves(saved.best.state).items()
        }
        arrays["best/outputs"] = saved.best.outputs
    if len(saved.taken.loss):
        arrays |= {
            f"taken/{name}": array for name, array in saved.taken._asdict().items()
        }
    return arrays


def _leaves(state: TrainState) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def _digest(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of names, formats, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return {"sha256": digest.hexdigest()}


def _require_room(workdir: pathlib.Path, num_bytes: int) -> None:
    """Raises UserError if the disk is too full for a checkpoint: Orbax, were it to
    begin, would complain at length."""
    free = shutil.disk_usage(workdir).free
    if free < num_bytes:
        raise UserError(
            f"--checkpoint_every: cannot write {workdir / FOLDER}: "
            f"{num_bytes / 2**20:.3g} MiB needed, {free / 2**20:.3g} free"
        )


@contextlib.contextmanager
def _disk(workdir: pathlib.Path) -> Iterator[None]:
    """Names what could not be written, in a line."""
    try:
        yield
    except (
        OSError,
        ValueError,
    ) as error:  # ValueError is what Orbax's storage makes of a full disk
        reason = str(error).splitlines()[0].rpartition(": ")[2]
        raise UserError(
            f"--checkpoint_every: cannot write {workdir / FOLDER}: {reason}"
        ) from None
