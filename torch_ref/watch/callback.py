"""Recording under Hugging Face's Trainer."""

import contextlib
import gc
import pathlib
import sys
from typing import Any

from jaxnn.experiment.errors import UserError
from torch_ref.watch.record import LIMIT, record

try:
    from transformers import (  # pyright: ignore[reportMissingImports]
        TrainerCallback,
    )
except ImportError as error:
    raise UserError(
        f"own.RecordCallback: transformers cannot be imported ({error}); install it"
    ) from None


class RecordCallback(TrainerCallback):
    """Records a Trainer's first optimizer steps: `trainer.add_callback(...)`.

    A Trainer whose training raises tells its callbacks nothing: the model stays hooked
    until the next training with this callback begins, or `close` is called.

    Args:
      folder: as of `record`.
      steps: as of `record`.
      limit: as of `record`.
    """

    def __init__(self, folder: str | pathlib.Path, steps: int, limit: int = LIMIT):
        self._folder = folder
        self._steps = steps
        self._limit = limit
        self._recording = contextlib.ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any):
        """Hooks the model, or the engine that DeepSpeed made of it."""
        # What an earlier training, which raised, has left; that it recorded nothing is
        # no error of this one.
        with contextlib.suppress(UserError):
            self.close()
        model = kwargs["model"]
        context = record(
            engine_of(model) or model,
            self._folder,
            self._steps,
            optimizer=kwargs.get("optimizer"),
            scheduler=kwargs.get("lr_scheduler"),
            first_step=state.global_step,
            limit=self._limit,
        )
        self._recording.enter_context(context)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any):
        """Unhooks it, if fewer steps than asked were done."""
        self.close()

    def close(self) -> None:
        """Unhooks the model, and waits for what is still to be written."""
        self._recording.close()


def engine_of(model: Any) -> Any:
    """Returns DeepSpeed's engine of a model; None if there is none."""
    deepspeed = sys.modules.get("deepspeed")
    kind = getattr(deepspeed, "DeepSpeedEngine", None)
    if kind is None:
        return None
    # The Trainer shows its callbacks the model alone, and no model knows its engine.
    for found in gc.get_objects():
        if type(found) is kind and found.module is model:
            return found
    return None
