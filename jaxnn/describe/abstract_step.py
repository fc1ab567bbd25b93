"""A training step in shapes alone: nothing is allocated, nothing is computed."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnn import freezing, losses, models, precision, train_step
from jaxnn.augmentation import augment
from jaxnn.dropout import mask_source
from jaxnn.experiment.catalogue import BINARY, LOSSES, MULTICLASS
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS, Optimizer
from jaxnn.train_step import Batch, TrainState


class AbstractStep(NamedTuple):
    """A training step on one device; every array is a jax.ShapeDtypeStruct.

    Attributes:
      experiment: settings of the training.
      model: the network.
      optimizer: the optimizer.
      state: state before the step.
      batch: this device's rows.
      microbatch: the rows that are computed at once, inputs in the compute dtype; all
        of this device's rows without `--accumulation_steps`.
    """

    experiment: Experiment
    model: nn.Module
    optimizer: Optimizer
    state: TrainState
    batch: Batch
    microbatch: Batch

    @property
    def compute_params(self) -> Any:
        """Parameters in the compute dtype, as forward and backward pass see them."""
        policy = precision.POLICIES[self.experiment.precision]
        return _cast(self.state.params, policy.compute)


def build(experiment: Experiment, signature: Signature) -> AbstractStep:
    """Returns the step that `jaxnn.train` would compile for one device.

    Args:
      experiment: settings of the training.
      signature: shapes of the data.
    """
    model = models.build(experiment, signature)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    policy = precision.POLICIES[experiment.precision]

    def initial_state() -> TrainState:
        variables = train_step.initial_variables(model, experiment.seed, signature)
        return train_step.initial_state(variables, experiment, optimizer)

    # --num_devices=0, all devices, counts as one: this machine is not the accelerator.
    rows = experiment.batch_size // max(experiment.num_devices, 1)
    microbatch = batch(experiment, signature, rows // experiment.accumulation_steps)
    return AbstractStep(
        experiment,
        model,
        optimizer,
        state=jax.eval_shape(initial_state),
        batch=batch(experiment, signature, rows),
        microbatch=microbatch._replace(inputs=_cast(microbatch.inputs, policy.compute)),
    )


def batch(experiment: Experiment, signature: Signature, rows: int) -> Batch:
    """Returns the shapes of a number of rows of the data."""
    steps = signature.input_shape[:1] if signature.per_step else ()
    tasks = LOSSES[experiment.loss]
    # One output cannot tell classes apart: such a task is binary, if the loss has it.
    is_binary = BINARY in tasks and signature.num_outputs == 1
    has_classes = MULTICLASS in tasks and not is_binary
    if has_classes:
        targets = jax.ShapeDtypeStruct((rows, *steps), jnp.int32)
    else:
        shape = (rows, *steps, signature.num_outputs)
        targets = jax.ShapeDtypeStruct(shape, jnp.float32)

    inputs = jax.ShapeDtypeStruct((rows, *signature.input_shape), signature.input_dtype)
    weights = jax.ShapeDtypeStruct((rows,), jnp.float32)
    # Like a Batch that jax.eval_shape returns: shapes in place of arrays.
    shapes = cast(Any, (inputs, targets, weights))
    return Batch(*shapes)


def make_objective(step: AbstractStep) -> Callable:
    """Returns objective(params, batch_stats, microbatch) -> (mean loss, batch_stats).

    It is the forward pass of training, without loss scale and devices.
    """
    loss_function = losses.build(step.experiment.loss, step.experiment.label_smoothing)

    def objective(params: Any, batch_stats: Any, microbatch: Batch):
        if step.experiment.freeze:
            trained = freezing.trained(step.experiment, params)
            params = freezing.merged(jax.lax.stop_gradient(params), trained)
        weights = microbatch.weights
        # Step 0 and row 0: their values cost nothing and change no shape.
        masks = mask_source(step.experiment.seed, 0, 0, weights)
        inputs = augment(step.experiment, microbatch.inputs, masks)
        outputs, updated = step.model.apply(
            {"params": params, "batch_stats": batch_stats},
            inputs,
            masks,
            mutable=["batch_stats"],
        )
        per_example = loss_function(outputs, microbatch.targets)
        mean = losses.weighted_mean(per_example, weights)
        return mean, updated.get("batch_stats", {})

    return objective


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.eval_shape(lambda tree: precision.cast(tree, dtype), tree)
