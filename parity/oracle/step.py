"""The two halves of a training step in float64.

Results have the names that `parity.replay.Replay` gives them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.experiment import freezing
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import augmentation, losses, models, optimizers, tensor
from parity.oracle.dropout import Masks
from parity.oracle.operations import total
from parity.oracle.scope import Scope

Arrays = Mapping[str, np.ndarray]


class Microbatch(NamedTuple):
    """Results of one microbatch.

    Attributes:
      activations: outputs by layer, [rows, ...].
      loss: sum of the microbatch's losses over the number of samples in the batch.
      grads: gradients of that loss, by name.
      batch_stats: running statistics after the microbatch.
    """

    activations: Arrays
    loss: np.ndarray
    grads: Arrays
    batch_stats: dict[str, np.ndarray]


def gradients(
    experiment: Experiment,
    signature: Signature,
    params: Arrays,
    batch_stats: Arrays,
    inputs: np.ndarray,
    targets: np.ndarray,
    step: int,
) -> dict[str, np.ndarray]:
    """First half of a step: activations, loss, gradients and running statistics.

    Args:
      experiment: model and loss; batch size, accumulation steps and seed determine the
        microbatches and dropout masks.
      signature: shapes of the inputs and outputs.
      params: parameters by name.
      batch_stats: running statistics by name; {} without batch normalization.
      inputs: [samples, ...] as the network sees them, scaled; a last batch may be
        smaller than `--batch_size`.
      targets: [samples, ...].
      step: batches seen before, skipped ones included.

    Returns:
      {"activations/LAYER", "loss", "grads/NAME", "updated_batch_stats/NAME"}, float64,
      the layers in forward order.

    Raises:
      UserError: a parameter or statistic is missing, has another shape, or is not the
        network's.
    """
    stats = {name: np.asarray(array, np.float64) for name, array in batch_stats.items()}
    rows = experiment.batch_size // experiment.accumulation_steps
    done = []

    # A smaller batch fills the first microbatches and leaves the last ones empty.
    for first_row in range(0, len(inputs), rows):
        part = slice(first_row, first_row + rows)
        microbatch = _microbatch(
            experiment,
            signature,
            params,
            stats,
            inputs[part],
            targets[part],
            Masks(experiment.seed, step, first_row),
            len(inputs),
        )
        done.append(microbatch)
        # Each microbatch moves the running statistics that the one before has left.
        stats = microbatch.batch_stats

    activations = {
        f"activations/{name}": np.concatenate([part.activations[name] for part in done])
        for name in done[0].activations
    }
    # Every loss is already divided by the samples of the whole batch, so that
    # microbatches add up, however many rows the last one has.
    loss = np.asarray(sum(part.loss for part in done))
    grads = {
        f"grads/{name}": np.asarray(sum(part.grads[name] for part in done))
        for name in freezing.trained(experiment, params)
    }
    updated_stats = {f"updated_batch_stats/{name}": stats[name] for name in stats}
    return activations | {"loss": loss} | grads | updated_stats


def _microbatch(
    experiment: Experiment,
    signature: Signature,
    params: Arrays,
    batch_stats: dict[str, np.ndarray],
    inputs: np.ndarray,
    targets: np.ndarray,
    masks: Masks,
    samples: int,
) -> Microbatch:
    variables = {name: tensor.variable(array) for name, array in params.items()}
    scope = Scope(variables, batch_stats, masks)
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    inputs = augmentation.augment(experiment, inputs, masks)

    # Values that are not finite are returned without a warning: the caller knows the
    # step and names the tensor.
    with np.errstate(all="ignore"):
        outputs = models.forward(scope, experiment, signature, inputs)
        _check_all_used(experiment, scope)
        loss = total(loss_function(outputs, targets)) * (1 / samples)
        grads = tensor.gradients(loss, list(scope.params.values()))

    return Microbatch(
        scope.activations,
        loss.value,
        dict(zip(scope.params, grads)),
        batch_stats | scope.updated_stats,
    )


def _check_all_used(experiment: Experiment, scope: Scope) -> None:
    """Raises UserError if the network has not used a parameter or statistic."""
    given = {f"params/{name}": "parameter" for name in scope.params}
    given |= {f"batch_stats/{name}": "statistic" for name in scope.batch_stats}
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
    learning_rate: float | np.floating | np.ndarray,
) -> dict[str, np.ndarray]:
    """Second half of a step: the optimizer's update.

    Args:
      experiment: optimizer flags.
      params: parameters by name.
      grads: gradients by name, unscaled.
      moments: "first/NAME" and "second/NAME", as far as the optimizer has them.
      updates: number of updates applied before.
      learning_rate: learning rate of this step, float32.

    Returns:
      {"updated/NAME", "updated_moments/first/NAME", "updated_moments/second/NAME"},
      float64.

    Raises:
      UserError: a gradient or moment is missing or has another shape.
    """
    trained = freezing.trained(experiment, params)
    _check_like(trained, "grads/", grads)
    for kind in optimizers.OPTIMIZERS[experiment.optimizer].moments:
        _check_like(trained, f"moments/{kind}/", select(moments, kind))

    with np.errstate(all="ignore"):
        updated, new_moments = optimizers.update(
            experiment,
            _float64(trained),
            _float64(grads),
            _float64(moments),
            int(updates),
            float(learning_rate),
        )
    return {
        **{f"updated/{n}": array for n, array in (_float64(params) | updated).items()},
        **{f"updated_moments/{name}": array for name, array in new_moments.items()},
    }


def _float64(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def _check_like(params: Arrays, kind: str, arrays: Arrays) -> None:
    """Raises UserError unless `arrays` has an array of the shape of each parameter."""
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
    """Returns [samples, ...] outputs in evaluation mode.

    Nothing is dropped, and batch normalization uses the running statistics.
    """
    # Constants instead of variables: no tape is kept.
    constants = {name: tensor.lift(array) for name, array in params.items()}
    scope = Scope(constants, dict(batch_stats))
    with np.errstate(all="ignore"):
        return models.forward(scope, experiment, signature, inputs).value
