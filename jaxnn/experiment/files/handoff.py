"""Handoff: the training state that one stack passes to the other.

It is a flat mapping of names to arrays, kept in one safetensors file:

    params/NAME            float32 master parameters; names and layouts are Flax's, as
                           in a trace
    moments/first/NAME     float32 first moments of the optimizer
    moments/second/NAME    float32 second moments of the optimizer
    batch_stats/NAME       float32 running statistics of batch normalization
    step                   () int32: batches processed, skipped ones included
    updates                () int32: updates applied; index into the learning rates
    optimizer_step         () int32: updates as the optimizer counts them (MISMATCHES
                           D2)
    loss_scale             () float32
    clean_steps            () int32: steps since the last overflow or the start
    hysteresis             () int32: overflows left before the loss scale halves
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.data import batches
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment

SCALARS = {
    "step": np.int32,
    "updates": np.int32,
    "optimizer_step": np.int32,
    "loss_scale": np.float32,
    "clean_steps": np.int32,
    "hysteresis": np.int32,
}

Handoff = dict[str, np.ndarray]


def make(
    params: Mapping[str, np.ndarray],
    batch_stats: Mapping[str, np.ndarray],
    moments: Mapping[str, Mapping[str, np.ndarray]],
    **scalars: Any,
) -> Handoff:
    """Returns the handoff of a training state.

    Args:
      params: flat master parameters.
      batch_stats: flat running statistics.
      moments: "first" and "second" -> flat moments.
      **scalars: one value for each name in `SCALARS`.
    """
    kinds = {
        "params": params,
        "batch_stats": batch_stats,
        **{f"moments/{name}": values for name, values in moments.items()},
    }
    arrays = {
        f"{kind}/{name}": np.asarray(array, np.float32)
        for kind, values in kinds.items()
        for name, array in values.items()
    }
    return arrays | {
        name: np.asarray(scalars[name], dtype) for name, dtype in SCALARS.items()
    }


def moments_of(handoff: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Returns {"first": {name: array}, "second": ...}.

    The inner mappings are empty if the optimizer has no such moments.
    """
    return {name: select(handoff, f"moments/{name}") for name in ("first", "second")}


def epochs_done(experiment: Experiment, num_samples: int, step: int) -> int:
    """Returns the number of epochs that are complete after `step` steps.

    Raises:
      UserError: the step is not the end of an epoch.
    """
    ends = np.cumsum(batches.plan(experiment, num_samples)).tolist()
    if step not in ends:
        raise UserError(
            f"--from: step {step} is not the end of an epoch, which are at {ends[0]}, "
            f"{2 * ends[0]}, ...; take a checkpoint from there"
        )
    return ends.index(step) + 1


def require_finite(handoff: Mapping[str, np.ndarray], source: pathlib.Path) -> None:
    """Raises UserError on the first non-finite tensor other than the loss scale."""
    for name, array in handoff.items():
        if name != "loss_scale" and not np.isfinite(array).all():
            raise UserError(
                f"--from: {name} of {source} is not finite; take an earlier checkpoint"
            )


def metrics_until(workdir: pathlib.Path, epochs: int) -> str:
    """Returns the text of metrics.csv up to and including an epoch.

    Raises:
      UserError: the file lacks rows up to that epoch.
    """
    path = workdir / artifacts.METRICS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # The first line is the header.
    if len(lines) <= epochs:
        raise UserError(
            f"--from: {path} holds {max(len(lines) - 1, 0)} of {epochs} epochs done; "
            "copy it whole beside the checkpoints"
        )
    return "".join(lines[: epochs + 1])


def describe(
    handoff: Mapping[str, np.ndarray],
    kinds: Iterable[str] = ("params", "moments", "batch_stats"),
) -> str:
    """Returns one line with the number of tensors of each kind and the counters."""
    counts = ", ".join(f"{len(select(handoff, kind))} {kind}" for kind in kinds)
    return (
        f"tensors: {counts}; step {handoff['step']}, updates {handoff['updates']}, "
        f"loss scale {handoff['loss_scale']:g}"
    )
