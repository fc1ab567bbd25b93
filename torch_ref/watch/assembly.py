"""Puts together what is written of a step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxnn.experiment.files import trace
from torch_ref.watch.passes import Pass, numbered


def seen(ended: Sequence[Pass], touched: set[str]) -> dict[str, Any]:
    """Returns what one rank has to tell of a step's forward passes."""
    unread = {name: why for one in ended for name, why in one.inputs.unread.items()}
    return {
        "passes": [one.tensors() for one in ended],
        "touched": set(touched),
        "absent": {f"inputs/{name}": why for name, why in unread.items()},
    }


def step(
    read: Mapping[str, Any],
    passes: list[Any],
    grads: Mapping[str, np.ndarray],
    loss_scale: float,
    skipped: bool,
) -> dict[str, Any]:
    """Returns a step by the trace's names.

    Args:
      read: the training state before and after it.
      passes: of all ranks.
      grads: unscaled, not clipped.
      loss_scale: that of the step.
      skipped: it changed nothing.
    """
    loss = sum(float(one["weight"]) * float(one["loss"]) for one in passes)
    return {
        **read,
        "passes": numbered(passes),
        "grads": grads,
        "loss": np.float32(loss),
        "grad_norm": trace.grad_norm(grads.values(), skipped),
        "loss_scale": np.float32(loss_scale),
        "skipped": np.bool_(skipped),
        "learning_rate": np.float32(read["groups"]["0"]["lr"]),
    }
