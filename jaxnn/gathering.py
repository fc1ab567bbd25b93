"""Samples on the devices, and the rows of a batch. Twin of torch_ref/gathering.py."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.samples import Samples
from jaxnn.train_step import Batch

OffsetScale = tuple[np.ndarray, np.ndarray] | None
"""Offset and scale of uint8 inputs, broadcastable to them; None to leave them as is."""


class Resident(NamedTuple):
    """What stays on the devices for the whole run.

    Attributes:
      train: training split.
      evaluated: evaluated splits, concatenated.
      learning_rates: [updates] float32.
    """

    train: Samples
    evaluated: Samples
    learning_rates: Any


def gather(samples: Samples, ids: jax.Array) -> Batch:
    """Returns the rows of ids [rows]; padding is row 0, weight 0."""
    places = jnp.maximum(ids, 0)
    # Ids are in bounds by construction; no check is compiled for them.
    inputs = samples.inputs.at[places].get(mode="promise_in_bounds")
    inputs = scale_bytes(inputs, samples.scaling)
    targets = samples.targets.at[places].get(mode="promise_in_bounds")
    weights = (ids != batches.PADDING).astype(jnp.float32)
    return Batch(inputs, targets, weights)


def scale_bytes(inputs: jax.Array, scaling: OffsetScale) -> jax.Array:
    """Returns uint8 images as float32, scaled; everything else unchanged."""
    if inputs.dtype != jnp.uint8:
        return inputs
    inputs = inputs.astype(jnp.float32)
    if scaling is None:
        return inputs
    # Explicitly: the tests forbid implicit rank promotion.
    offset, scale = (jnp.broadcast_to(array, inputs.shape) for array in scaling)
    return (inputs - offset) * scale
