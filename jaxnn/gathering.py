"""Samples on the devices, and the rows of a batch. Twin of torch_ref/gathering.py."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.samples import Samples
from jaxnn.train_step import Batch

OffsetScale = tuple[np.ndarray, np.ndarray] | None


class Resident(NamedTuple):
    """What stays on the devices for the whole run.

    Attributes:
      train: the training split.
      evaluated: every split that is evaluated, one after the other.
      learning_rates: [updates] float32.
    """

    train: Samples
    evaluated: Samples
    learning_rates: Any


def gather(samples: Samples, ids: jax.Array) -> Batch:
    """The rows of ids [rows]; padding has weight 0."""
    places = jnp.maximum(ids, 0)
    return Batch(
        scale_bytes(
            samples.inputs.at[places].get(mode="promise_in_bounds"), samples.scaling
        ),
        samples.targets.at[places].get(mode="promise_in_bounds"),
        (ids != batches.PADDING).astype(jnp.float32),
    )


def scale_bytes(inputs: jax.Array, scaling: OffsetScale) -> jax.Array:
    """uint8 images as float32, scaled; everything else as it is."""
    if inputs.dtype != jnp.uint8:
        return inputs
    inputs = inputs.astype(jnp.float32)
    if scaling is None:
        return inputs
    offset, scale = (jnp.broadcast_to(array, inputs.shape) for array in scaling)
    return (inputs - offset) * scale
