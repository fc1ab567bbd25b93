"""A run's state on its way from one stack to the other: arrays by name, in one
safetensors file.

params/NAME                   master parameters, float32; names and layouts are Flax's,
as in a trace moments/first/NAME, moments/second/NAME   of the optimizer
batch_stats/NAME              running statistics of batch normalization step
() int32: batches seen, skipped ones counted updates                       () int32:
updates applied, which is where the learning rate stands optimizer_step
() int32: updates as the optimizer itself counts them (MISMATCHES D2) loss_scale
() float32 clean_steps                   () int32: steps since the last overflow, or
since the start hysteresis                    () int32: overflows left before the loss
scale halves
"""

import pathlib
from collections.abc import Iterable, Mapping

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
    **scalars: float,
) -> Handoff:
    """The arrays of a state; `scalars` are those of `SCALARS`."""
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
        name: np.asarray(scalars[name], kind) for name, kind in SCALARS.items()
    }


def moments_of(handoff: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """{"first": {name: array}, "second": ...}, empty mappings where the optimizer keeps
    none."""
    return {name: select(handoff, f"moments/{name}") for name in ("first", "second")}


def epochs_done(experiment: Experiment, num_samples: int, step: int) -> int:
    """The epochs that so many steps are.

    Raises:
      UserError: they end within an epoch, or there are none.
    """
    ends = np.cumsum(batches.plan(experiment, num_samples)).tolist()
    if step not in ends:
        raise UserError(
            f"--from: step {step} is not the end of an epoch, which are at {ends[0]}, "
            f"{2 * ends[0]}, ...; take a checkpoint from there"
        )
    return ends.index(step) + 1


def require_finite(handoff: Mapping[str, np.ndarray], source: pathlib.Path) -> None:
    """Raises UserError on the first tensor that is not finite, the loss scale apart."""
    for name, array in handoff.items():
        if name != "loss_scale" and not np.isfinite(array).all():
            raise UserError(
                f"--from: {name} of {source} is not finite; take an earlier checkpoint"
            )


def metrics_until(workdir: pathlib.Path, epochs: int) -> str:
    """metrics.csv up to an epoch.

    Raises:
      UserError: the rows are not all there.
    """
    path = workdir / artifacts.METRICS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
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
    """One line: how many tensors, and where the run stands."""
    counts = ", ".join(f"{len(select(handoff, kind))} {kind}" for kind in kinds)
    return (
        f"tensors: {counts}; step {handoff['step']}, updates {handoff['updates']}, "
        f"loss scale {handoff['loss_scale']:g}"
    )
