"""The two halves of a training step, in float64, by the names under which
`parity.replay.Replay` has them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import losses, models, optimizers
from parity.oracle.dropout import Masks
from parity.oracle.operations import total
from parity.oracle.scope import Scope
from parity.oracle.tensor import gradients as derivatives
from parity.oracle.tensor import lift, variable

Arrays = Mapping[str, np.ndarray]


def gradients(
    experiment: Experiment,
    signature: Signature,
    params: Arrays,
    batch_stats: Arrays,
    inputs: np.ndarray,
    targets: np.ndarray,
    step: int,
) -> dict[str, np.ndarray]:
    """The first half: loss, gradients and running statistics of one batch.

    Args:
      experiment: model and loss; its batch size, seed and accumulation decide on the
        parts and masks of a batch.
      signature: of the data.
      params: by name.
      batch_stats: by name; {} without batch normalization.
      inputs: [samples, ...] as the network sees them, scaled; a last batch may be
        smaller than `--batch_size`.
      targets: [samples, ...].
      step: batches seen before, skipped ones counted.

    Returns:
      {"activations/LAYER", "loss", "grads/NAME", "updated_batch_stats/NAME"}, float64,
      the layers in forward order.

    Raises:
      UserError: a parameter or statistic is missing, of another shape, or not the
        network's.
    """
    stats = {name: np.asarray(array, np.float64) for name, array in batch_stats.items()}
    rows = experiment.batch_size // experiment.accumulation_steps
    parts = []
    for first_row in range(0, len(inputs), rows):
        part, masks = (
            slice(first_row, first_row + rows),
            Masks(experiment.seed, step, first_row),
        )
        parts.append(
            _part(
                experiment,
                signature,
                params,
                stats,
                inputs[part],
                targets[part],
                masks,
                len(inputs),
            )
        )
        stats = parts[-1].batch_stats
    found = {
        f"activations/{name}": np.concatenate(
            [part.activations[name] for part in parts]
        )
        for name in parts[0].activations
    }
    found["loss"] = np.asarray(sum(part.loss for part in parts))
    return (
        found
        | {f"grads/{name}": sum(part.grads[name] for part in parts) for name in params}
        | {f"updated_batch_stats/{name}": array for name, array in stats.items()}
    )


class Microbatch(NamedTuple):
    """What one part of a batch gives.

    Attributes:
      activations: by layer, [rows, ...].
      loss: the sum of the part's losses over the whole batch's samples.
      grads: of that, by name.
      batch_stats: running statistics after the part.
    """

    activations: Arrays
    loss: np.ndarray
    grads: Arrays
    batch_stats: dict[str, np.ndarray]


def _part(
    experiment: Experiment,
    signature: Signature,
    params: Arrays,
    batch_stats: dict[str, np.ndarray],
    inputs: np.ndarray,
    targets: np.ndarray,
    masks: Masks,
    samples: int,
) -> Microbatch:
    scope = Scope(
        {name: variable(array) for name, array in params.items()}, batch_stats, masks
    )
    with np.errstate(all="ignore"):  # what is not finite is for the caller to name
        outputs = models.forward(scope, experiment, signature, inputs)
        _refuse_strangers(experiment, scope)
        per_example = losses.build(experiment.loss, experiment.label_smoothing)(
            outputs, targets
        )
        loss = total(per_example) * (1 / samples)
        grads = derivatives(loss, list(scope.params.values()))
    return Microbatch(
        scope.activations,
        loss.value,
        dict(zip(scope.params, grads)),
        batch_stats | scope.updated_stats,
    )


def _refuse_strangers(experiment: Experiment, scope: Scope) -> None:
    given = {f"params/{name}": "parameter" for name in scope.params} | {
        f"batch_stats/{name}": "statistic" for name in scope.batch_stats
    }
    for name, what in given.items():
        if name not in scope.used:
            raise UserError(
                f"{name}: --model={experiment.model} has no such {what}; leave it out"
            )


def update(
    experiment: Experiment,
    params: Arrays,
    grads: Arrays,
    moments: Arrays,
    updates: int,
    learning_rate: float | np.ndarray,
) -> dict[str, np.ndarray]:
    """The second half: the optimizer's step.

    Args:
      experiment: its optimizer flags.
      params: by name.
      grads: by name, unscaled.
      moments: by "first/NAME" and "second/NAME", those that the optimizer has.
      updates: applied before.
      learning_rate: of this step, float32.

    Returns:
      {"updated/NAME", "updated_moments/first/NAME", "updated_moments/second/NAME"},
      float64.

    Raises:
      UserError: a gradient or moment is missing or of another shape.
    """
    _check_like(params, "grads/", grads)
    for kind in optimizers.OPTIMIZERS[experiment.optimizer].moments:
        _check_like(params, f"moments/{kind}/", select(moments, kind))
    wide = [
        {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        for arrays in (params, grads, moments)
    ]
    with np.errstate(all="ignore"):
        updated, new_moments = optimizers.update(
            experiment, *wide, int(updates), float(learning_rate)
        )
    return {
        **{f"updated/{name}": array for name, array in updated.items()},
        **{f"updated_moments/{name}": array for name, array in new_moments.items()},
    }


def _check_like(params: Arrays, kind: str, arrays: Arrays) -> None:
    for name, param in params.items():
        found = np.shape(arrays[name]) if name in arrays else "missing"
        if found != np.shape(param):
            raise UserError(
                f"{kind}{name}: is {found}, the parameter is {np.shape(param)}; record "
                "it with --record=full"
            )


def outputs(
    experiment: Experiment,
    signature: Signature,
    params: Arrays,
    batch_stats: Arrays,
    inputs: np.ndarray,
) -> np.ndarray:
    """[samples, ...] outputs outside training: nothing is dropped, norms use the
    running statistics."""
    scope = Scope(
        {name: lift(array) for name, array in params.items()}, dict(batch_stats)
    )
    with np.errstate(all="ignore"):
        return models.forward(scope, experiment, signature, inputs).value
