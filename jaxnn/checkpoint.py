"""Saves and restores the whole training state, so that a resumed run continues bit for
bit. Twin of torch_ref/checkpoint.py.

A checkpoint is Orbax's, the folder `checkpoints/step_000000300`. It holds arrays by
path, their digest, and no code:

    state/...   the TrainState
    best/...    under `--patience`, the best epoch's TrainState and its outputs
    taken/...   what the steps of an unfinished epoch reported

It is written while training goes on, under another name until it is whole.
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

from jaxnn import late_callbacks
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.train_step import TrainState

KEPT = 2
"""Checkpoints that are kept unless `--keep` says otherwise."""
FOLDER = "checkpoints"
PREFIX = "step"
DIGITS = 9


class Best(NamedTuple):
    """What early stopping would return to.

    Attributes:
      state: state after the best epoch so far, on the host.
      outputs: [devices, batches, rows, ...] outputs on the test split at least.
    """

    state: TrainState
    outputs: np.ndarray


class Reported(NamedTuple):
    """What the steps of an unfinished epoch have reported so far.

    Attributes:
      loss: [steps] float.
      learning_rate: [steps] float32.
      skipped: [steps] bool.
    """

    loss: np.ndarray
    learning_rate: np.ndarray
    skipped: np.ndarray


NOTHING_REPORTED = Reported(
    np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, bool)
)
"""Between epochs."""


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      state: one copy, on the host; its `step` says where the run stands.
      best: under `--patience`; else None.
      reported: by the steps of an unfinished epoch.
    """

    state: TrainState
    best: Best | None = None
    reported: Reported = NOTHING_REPORTED


class Network(NamedTuple):
    """What a network is made of, by flat names.

    Attributes:
      params: master parameters.
      batch_stats: running statistics; empty without batch normalization.
    """

    params: Mapping[str, np.ndarray]
    batch_stats: Mapping[str, np.ndarray]


class Checkpoints:
    """Writes checkpoints in the background, and removes all but the newest.

    Args:
      workdir: run directory.
      keep: number of checkpoints to keep.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = KEPT):
        self._workdir = workdir
        self._keep = keep
        self._manager = None
        self._put_back = None

    def save(self, saved: Saved) -> None:
        """Starts to write a checkpoint, once the last one is whole.

        Raises:
          UserError: the last one could not be written, or there is no room.
        """
        # Takes half a second, which a run without checkpoints does not pay.
        import orbax.checkpoint as ocp

        arrays = _by_path(saved)
        _require_room(self._workdir, sum(array.nbytes for array in arrays.values()))
        self._put_back = self._put_back or late_callbacks.drop()
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
        """Waits until all is written; raises UserError as `save` does."""
        if self._manager:
            with _disk(self._workdir):
                self._manager.wait_until_finished()
                self._manager.close()
            self._manager = None
        if self._put_back:
            self._put_back()
            self._put_back = None


def save(workdir: pathlib.Path, state: TrainState) -> None:
    """Writes one checkpoint and waits for it."""
    checkpoints = Checkpoints(workdir)
    checkpoints.save(Saved(state))
    checkpoints.close()


def restore(workdir: pathlib.Path, like: TrainState) -> TrainState:
    """Returns the state of the newest checkpoint.

    Args:
      workdir: run directory.
      like: a state of the same shapes and dtypes.

    Raises:
      UserError: there is none, none can be read, or one is of another model.
    """
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
    """Returns the newest checkpoint that can be read; None if there is none at all.

    Args:
      workdir: run directory.
      like: a state of the same shapes and dtypes.
      before: only checkpoints of fewer steps count; None for all.

    Raises:
      UserError: none of them can be read, or one is of another model.
    """
    found = [step for step in steps(workdir) if before is None or step < before]
    for step in reversed(found):
        arrays = _read_or_say(workdir, step)
        if arrays is not None:
            return _saved(arrays, like, _folder(workdir, step))
    if found:
        raise UserError(
            f"--resume: none of the {len(found)} checkpoints in {workdir / FOLDER} can "
            "be read; --overwrite the run"
        )
    return None


def read_network(workdir: pathlib.Path, step: int) -> Network | None:
    """Returns the network of one checkpoint; says so and returns None if damaged."""
    arrays = _read_or_say(workdir, step)
    if arrays is None:
        return None
    state = trace.select(arrays, "state")
    return Network(trace.select(state, "params"), trace.select(state, "batch_stats"))


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints that are whole, in order."""
    # A checkpoint that is being written has another suffix, and does not match.
    names = [folder.name for folder in (workdir / FOLDER).glob(f"{PREFIX}_*")]
    matches = [re.fullmatch(rf"{PREFIX}_(\d+)", name) for name in names]
    return sorted(int(match[1]) for match in matches if match)


def forget_after(workdir: pathlib.Path, step: int) -> None:
    """Removes the checkpoints of later steps, which a resumed run writes again."""
    for later in steps(workdir):
        if later > step:
            shutil.rmtree(_folder(workdir, later))


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / FOLDER / f"{PREFIX}_{step:0{DIGITS}d}"


def _manager(ocp: Any, workdir: pathlib.Path, keep: int) -> Any:
    """Returns Orbax's manager, for the one process that writes."""
    # Orbax logs every save through absl's logger.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        step_prefix=PREFIX,
        step_format_fixed_length=DIGITS,
        create=False,
        multiprocessing_options=_alone(ocp),
    )
    (workdir / FOLDER).mkdir(exist_ok=True)
    # Orbax wants absolute paths.
    return ocp.CheckpointManager((workdir / FOLDER).resolve(), options=options)


def _alone(ocp: Any) -> Any:
    """Returns options under which Orbax waits for no other process."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    # Only one process reads or writes; a barrier would wait for the others forever.
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix="checkpoint"
    )


def _read_or_say(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a checkpoint by path; a damaged one is said, and None."""
    folder = _folder(workdir, step)
    put_back = late_callbacks.drop()
    try:
        arrays = _read(folder)
    # Orbax, its storage and its codecs raise anything on a damaged checkpoint.
    except Exception as error:
        reason = str(error).splitlines()[0]
        print(f"{folder} is damaged and left out: {reason}", flush=True)
        return None
    put_back()
    return arrays


def _read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint by path; raises anything on a damaged one."""
    import orbax.checkpoint as ocp

    alone = _alone(ocp)
    handlers = ocp.CompositeCheckpointHandler(
        arrays=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        digest=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    with ocp.Checkpointer(handlers, multiprocessing_options=alone) as reader:
        read = reader.restore(
            folder.resolve(),
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(), digest=ocp.args.JsonRestore()
            ),
        )
    flat = trace.flatten(read.arrays)
    arrays = {name: np.asarray(array) for name, array in flat.items()}
    # Orbax does not notice every flipped bit.
    if _digest(arrays) != read.digest:
        raise ValueError("its arrays are not those of its digest")
    return arrays


def _saved(
    arrays: Mapping[str, np.ndarray], like: TrainState, folder: pathlib.Path
) -> Saved:
    """Arrays by path -> what they are, in the structure of `like`."""
    state = _like(trace.select(arrays, "state"), like, folder)
    best = None
    best_arrays = trace.select(arrays, "best")
    if best_arrays:
        outputs = best_arrays.pop("outputs")
        best = Best(_like(best_arrays, like, folder), outputs)
    taken = trace.select(arrays, "taken")
    return Saved(state, best, Reported(**taken) if taken else NOTHING_REPORTED)


def _like(
    arrays: Mapping[str, np.ndarray], like: TrainState, folder: pathlib.Path
) -> TrainState:
    """Returns arrays by path as a TrainState; raises UserError on another model's."""
    wanted = _leaves(like)
    for path in sorted(wanted.keys() | arrays.keys()):
        known = path in arrays and path in wanted
        if not known or arrays[path].shape != wanted[path].shape:
            raise UserError(f"--resume: {path} of {folder} is not this experiment's")
    leaves = [arrays[path] for path in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _by_path(saved: Saved) -> dict[str, np.ndarray]:
    """What a checkpoint holds -> arrays by path."""
    arrays = {f"state/{path}": array for path, array in _leaves(saved.state).items()}
    if saved.best:
        for path, array in _leaves(saved.best.state).items():
            arrays[f"best/{path}"] = array
        arrays["best/outputs"] = saved.best.outputs
    # Between epochs there is nothing to store.
    if len(saved.reported.loss):
        for name, array in saved.reported._asdict().items():
            arrays[f"taken/{name}"] = array
    return arrays


def _leaves(state: TrainState) -> dict[str, np.ndarray]:
    """Returns the arrays of a state by path, in the pytree's order."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def _digest(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return {"sha256": digest.hexdigest()}


def _require_room(workdir: pathlib.Path, num_bytes: int) -> None:
    """Raises UserError if the disk is too full for a checkpoint."""
    # Orbax would start all the same, and fail with pages of traceback.
    free = shutil.disk_usage(workdir).free
    if free < num_bytes:
        raise UserError(
            f"--checkpoint_every: cannot write {workdir / FOLDER}: "
            f"{num_bytes / 2**20:.3g} MiB needed, {free / 2**20:.3g} free"
        )


@contextlib.contextmanager
def _disk(workdir: pathlib.Path) -> Iterator[None]:
    """Turns errors of the disk into a UserError of one line."""
    try:
        yield
    # Orbax's storage (tensorstore) raises ValueError on a full disk.
    except (OSError, ValueError) as error:
        raise UserError(
            f"--checkpoint_every: cannot write {workdir / FOLDER}: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """Returns the last of an error's reasons, without what tensorstore adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # "...: No space left on device [os_error_code='28'] [tensorstore_spec='...']"
    said = re.split(r" \[\w+='", str(error).splitlines()[0])[0]
    # Orbax raises some errors with nothing but a path.
    if isinstance(error, FileNotFoundError):
        return f"{said} is gone"
    return said.rpartition(": ")[2]
