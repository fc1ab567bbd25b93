"""A training step of an experiment in shapes alone: nothing is allocated and nothing is
computed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnn import losses, models, precision, train_step
from jaxnn.dropout import mask_source
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS, Optimizer
from jaxnn.train_step import Batch, TrainState

CLASSES = ("cross_entropy", "multiclass_hinge")
"""Losses whose targets are always whole numbers."""


class AbstractStep(NamedTuple):
    """What a step on one device works on; every array a jax.ShapeDtypeStruct.

    Attributes:
      experiment: what is trained.
      model: its network.
      optimizer: its optimizer.
      state: before the step.
      batch: this device's rows.
      part: the rows that are computed at once, all of them without
        `--accumulation_steps`; in the compute format.
    """

    experiment: Experiment
    model: nn.Module
    optimizer: Optimizer
    state: TrainState
    batch: Batch
    part: Batch

    @property
    def compute_params(self) -> Any:
        """The parameters that forward and backward pass read, in the compute format."""
        return _cast(
            self.state.params, precision.POLICIES[self.experiment.precision].compute
        )


def build(experiment: Experiment, signature: Signature) -> AbstractStep:
    """The step that `jaxnn.train` would compile for one device.

    Args:
      experiment: what is trained.
      signature: shapes of the data.
    """
    model, optimizer = (
        models.build(experiment, signature),
        OPTIMIZERS[experiment.optimizer](experiment),
    )
    rows = experiment.batch_size // max(experiment.num_devices, 1)
    state = jax.eval_shape(
        lambda: train_step.initial_state(
            train_step.initial_variables(model, experiment.seed, signature),
            experiment,
            optimizer,
        )
    )
    part = batch(experiment, signature, rows // experiment.accumulation_steps)
    part = part._replace(
        inputs=_cast(part.inputs, precision.POLICIES[experiment.precision].compute)
    )
    return AbstractStep(
        experiment, model, optimizer, state, batch(experiment, signature, rows), part
    )


def batch(experiment: Experiment, signature: Signature, rows: int) -> Batch:
    """The shapes of so many rows of a data set with such a signature."""
    steps = signature.input_shape[:1] if signature.per_step else ()
    is_classes = experiment.loss in CLASSES or (
        experiment.loss == "perceptron" and signature.num_outputs > 1
    )
    targets = (
        jax.ShapeDtypeStruct((rows, *steps), jnp.int32)
        if is_classes
        else jax.ShapeDtypeStruct((rows, *steps, signature.num_outputs), jnp.float32)
    )
    inputs = jax.ShapeDtypeStruct(
        (rows, *signature.input_shape),
        jnp.int32 if signature.num_tokens else jnp.float32,
    )
    return Batch(inputs, targets, jax.ShapeDtypeStruct((rows,), jnp.float32))


def make_objective(step: AbstractStep) -> Callable:
    """Returns objective(params, batch_stats, part) -> (mean loss, batch_stats):
    training's forward pass."""
    loss_function = losses.build(step.experiment.loss, step.experiment.label_smoothing)

    def objective(params: Any, batch_stats: Any, part: Batch):
        masks = mask_source(step.experiment.seed, 0, 0, len(part.weights), part.weights)
        outputs, updated = step.model.apply(
            {"params": params, "batch_stats": batch_stats},
            part.inputs,
            masks,
            mutable=["batch_stats"],
        )
        per_example = loss_function(outputs, part.targets)
        weights = part.weights.astype(per_example.dtype)
        return jnp.sum(per_example * weights) / weights.sum(), updated.get(
            "batch_stats", {}
        )

    return objective


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.eval_shape(lambda tree: precision.cast(tree, dtype), tree)
