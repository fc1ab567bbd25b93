"""Refuses a trace whose steps are not those of its experiment, before it is judged."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from jaxnn import models, train_step
from jaxnn.experiment.catalogue import OPTIMIZERS
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.batch_summary import KINDS
from jaxnn.experiment.files.trace import Reader, flatten, select
from jaxnn.experiment.flags.config import Experiment

Shapes = Mapping[str, tuple[int, ...]]

SCALARS = {
    "loss": "f",
    "grad_norm": "f",
    "loss_scale": "f",
    "learning_rate": "f",
    "optimizer_step": "iu",
    "skipped": "b",
}
"""Name -> kinds of NumPy's dtypes that it may have."""


def require_whole(
    trace: Reader, name: str, experiment: Experiment, data: Dataset
) -> None:
    """Checks names, shapes, ids and scalars of every step, and the number of ranks.

    Args:
      trace: recording.
      name: its folder, for messages.
      experiment: what its flags say.
      data: its data set.

    Raises:
      UserError: the first tensor that is not as the experiment has it.
    """
    ranks = trace.meta["world_size"] * experiment.accumulation_steps
    if experiment.batch_size % ranks:
        raise UserError(
            f"cannot judge: {name}/meta.json: world_size {trace.meta['world_size']} "
            f"does not divide --batch_size={experiment.batch_size}"
        )
    wanted = shapes(experiment, data)
    for number in range(len(trace)):
        step = trace.read(number)
        for problem in _problems(step, wanted, len(data.train_inputs)):
            raise UserError(
                f"cannot judge: {name}: step {number}: {problem}; record it again with "
                "--record=full"
            )


def shapes(experiment: Experiment, data: Dataset) -> dict[str, tuple[int, ...]]:
    """Returns {name: shape} of every parameter, gradient, moment and statistic."""
    model = models.build(experiment, data.signature)
    made = jax.eval_shape(
        lambda: train_step.initial_variables(model, 0, data.signature)
    )
    held = {
        kind: {name: leaf.shape for name, leaf in flatten(made.get(kind, {})).items()}
        for kind in ("params", "batch_stats")
    }
    moments = OPTIMIZERS[experiment.optimizer].moments
    kinds = {
        "params": ["params", "grads", "updated"]
        + [f"{when}/{moment}" for when in MOMENTS for moment in moments],
        "batch_stats": ["batch_stats", "updated_batch_stats"],
    }
    return {
        f"{kind}/{name}": shape
        for source, targets in kinds.items()
        for kind in targets
        for name, shape in held[source].items()
    }


MOMENTS = ("moments", "updated_moments")


def _problems(
    step: Mapping[str, np.ndarray], wanted: Shapes, samples: int
) -> Iterator[str]:
    """Yields what is wrong with a step, in words."""
    kinds = {name.split("/")[0] for name in wanted}
    given = {name for name in step if name.split("/")[0] in kinds}
    for name in sorted(wanted.keys() | given):
        here = step[name].shape if name in step else "missing"
        there = wanted.get(name, "unknown")
        if here != there:
            yield f"{name} is {here}, {there} in the network of its flags"
        elif step[name].dtype.kind != "f":
            yield f"{name} is {step[name].dtype}, not of floating-point numbers"
    for name, allowed in SCALARS.items():
        array = step.get(name)
        if array is None or array.shape or array.dtype.kind not in allowed:
            yield f"{name} is {_described(array)}, not one number"
    yield from _bad_ids(step.get("batch/ids"), samples)
    for kind in KINDS:
        yield from _bad_digest(step, f"batch/{kind}")
    for name, array in select(step, "activations").items():
        if array.shape[:1] != step["batch/ids"].shape:
            yield f"activations/{name} is {_described(array)}, not a row of each sample"


def _bad_ids(ids: np.ndarray | None, samples: int) -> Iterator[str]:
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        yield f"batch/ids is {_described(ids)}, not the ids of a batch"
    elif ids.min() < 0 or ids.max() >= samples:
        worst = ids.min() if ids.min() < 0 else ids.max()
        yield f"batch/ids holds {worst}, and there are {samples} training samples"


def _bad_digest(step: Mapping[str, np.ndarray], name: str) -> Iterator[str]:
    """Older traces have no digests."""
    digest = step.get(f"{name}/digest")
    if digest is None:
        return
    if digest.shape != (32,) or digest.dtype != np.uint8:
        yield f"{name}/digest is {_described(digest)}, not the 32 bytes of a SHA-256"
    for statistic in ("mean", "largest"):
        array = step.get(f"{name}/{statistic}")
        if array is None or array.ndim != 1 or array.dtype.kind != "f":
            yield f"{name}/{statistic} is {_described(array)}, not one number a column"


def _described(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype} {array.shape}"
