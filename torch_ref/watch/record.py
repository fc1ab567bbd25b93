"""The context in which training is recorded."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from jaxnn.experiment.errors import UserError
from torch_ref.watch.engine import Engine
from torch_ref.watch.engine_hooks import EngineHooks
from torch_ref.watch.folder import Folder
from torch_ref.watch.plain import Plain
from torch_ref.watch.plain_hooks import PlainHooks
from torch_ref.watch.watcher import Watcher

LIMIT = 2**26
"""Bytes beyond which an input is recorded as a digest, unless told otherwise."""


@contextlib.contextmanager
def record(
    model: Any,
    folder: str | pathlib.Path,
    steps: int,
    *,
    optimizer: Any = None,
    scaler: Any = None,
    scheduler: Any = None,
    first_step: int = 0,
    limit: int = LIMIT,
) -> Iterator[None]:
    """Records the next optimizer steps of a training loop within the context.

    After the last of them, and on any exit, the loop runs as if never watched.

    Args:
      model: DeepSpeed's engine, or a network, DDP's or Accelerate's included.
      folder: new folder of the trace, or one whose trace ends before `first_step`.
      steps: optimizer steps to record; skipped ones count.
      optimizer: torch's, unless `model` is an engine.
      scaler: torch's GradScaler, if the loop uses one.
      scheduler: of the learning rate; its class is noted.
      first_step: steps done before, in a resumed run.
      limit: bytes beyond which an input is a digest.

    Raises:
      UserError: nothing here can be recorded, or no step happened.
    """
    if steps < 1:
        raise UserError(f"own.record: steps={steps}; give a number of at least 1")
    engine = as_engine(model)
    subject = (
        Engine(engine)
        if engine is not None
        else plain(model, optimizer, scheduler, first_step)
    )
    scaler = scaler or getattr(optimizer, "scaler", None)
    path = Folder(pathlib.Path(folder), first_step)
    # The folder is closed last: it may have steps to write.
    with path, contextlib.ExitStack() as undo:
        watcher = Watcher(subject, path, steps, first_step, limit, undo)
        watcher.forwards.hook(undo)
        # After it: what drops passes runs before what begins one.
        hooks_of(watcher, subject, scaler).put(undo)
        yield
        watcher.require_steps()


def hooks_of(
    watcher: Watcher, subject: Engine | Plain, scaler: Any
) -> EngineHooks | PlainHooks:
    """Returns what tells a watcher of a subject's training."""
    if isinstance(subject, Engine):
        return EngineHooks(watcher, subject)
    return PlainHooks(watcher, subject, scaler)


def as_engine(model: Any) -> Any:
    """Returns the model if it is DeepSpeed's engine, else None.

    Raises:
      UserError: it is an engine that runs its own loop.
    """
    # A program without DeepSpeed does not wait for its import.
    deepspeed = sys.modules.get("deepspeed")
    if deepspeed is None or not isinstance(model, deepspeed.DeepSpeedEngine):
        return None
    if type(model).__name__ == "PipelineEngine":
        raise UserError(
            "own.record: a pipeline's engine cannot be recorded; train without "
            "pipeline parallelism"
        )
    return model


def plain(model: Any, optimizer: Any, scheduler: Any, first_step: int) -> Plain:
    """Returns a model and its optimizer as a subject.

    Raises:
      UserError: one of them is missing or of another kind.
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            f"own.record: {type(model).__name__} is neither a torch module nor "
            "DeepSpeed's engine; give one of them"
        )
    if optimizer is None:
        raise UserError(
            "own.record: a model without an engine needs its optimizer; give "
            "optimizer=..."
        )
    return Plain(model, optimizer, scheduler, first_step)
