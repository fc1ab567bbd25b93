"""Records a training program of one's own; see `torch_ref.watch`.

torch is imported when one of these is called: whoever judges needs none.
"""

import contextlib
import pathlib
from typing import Any


def record(
    model: Any,
    folder: str | pathlib.Path,
    steps: int,
    *,
    optimizer: Any = None,
    scaler: Any = None,
    scheduler: Any = None,
    first_step: int = 0,
    limit: int | None = None,
) -> contextlib.AbstractContextManager[None]:
    """Records the next optimizer steps of a training loop within the context.

        with own.record(engine, "runs/mine", steps=20):
            train(...)

    After the last of them, and on any exit, the loop runs as if never watched. Files
    are written on a thread, step by step; all of them are there when the context ends,
    and a killed run leaves whole steps.

    Recorded are, per step: parameters, moments and buffers before and after it, the
    16-bit weights that were read, unscaled gradients before clipping, every group's
    hyper-parameters, loss and loss scale, and of each forward pass with a backward pass
    its inputs, targets, dropout masks and layers' outputs; see the end of
    `jaxnn.experiment.files.trace`.

    Absent are: layers that were called past the model, evaluations, losses of several
    forward passes term by term, masks of dropouts inside fused kernels and recurrent
    layers, further optimizer state than two moments, and gradients of parameters that
    no pass used. meta.json says so under `absent` and `unreachable_dropout`. Not
    recorded at all are FSDP, pipelines, and models that gain modules while they train.

    Args:
      model: DeepSpeed's engine, or a network, DDP's or Accelerate's included.
      folder: new folder of the trace, or one whose trace ends before `first_step`.
      steps: optimizer steps to record; skipped ones count.
      optimizer: torch's, unless `model` is an engine.
      scaler: torch's GradScaler, if the loop uses one.
      scheduler: of the learning rate; its class is noted.
      first_step: steps done before, in a resumed run.
      limit: bytes beyond which an input is a digest; 64 MiB if None.

    Raises:
      UserError: nothing here can be recorded, no step happened, or a file could not be
        written.
    """
    from torch_ref import watch

    return watch.record(
        model,
        folder,
        steps,
        optimizer=optimizer,
        scaler=scaler,
        scheduler=scheduler,
        first_step=first_step,
        limit=watch.LIMIT if limit is None else limit,
    )


def RecordCallback(
    folder: str | pathlib.Path, steps: int, limit: int | None = None
) -> Any:
    """Returns a callback for Hugging Face's Trainer that records its first steps.

        trainer.add_callback(own.RecordCallback("runs/mine", steps=20))

    A Trainer that raises leaves the model hooked; the callback's `close` unhooks it.

    Args:
      folder: as of `record`.
      steps: as of `record`.
      limit: as of `record`.

    Raises:
      UserError: transformers is not installed.
    """
    from torch_ref import watch

    return watch.callback(folder, steps, watch.LIMIT if limit is None else limit)


def prepare_deepspeed() -> None:
    """Announces DeepSpeed's compilations, and removes the lock of a killed one.

    To be called before `deepspeed.initialize`, which compiles without a word. Optional.
    """
    from torch_ref import watch

    watch.prepare_deepspeed()
