"""Samples by their ids: on the host as they are held there, on the devices, and the rows of a batch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.experiment import batches, rows
from jaxnn.experiment.datasets import Dataset
from jaxnn.experiment.evaluation import Split
from jaxnn.train_step import Batch

Scaling = tuple[np.ndarray, np.ndarray] | None


class Samples(NamedTuple):
    """Inputs and targets, on the host or on the devices.

    Attributes:
      inputs: [samples, ...]; on the host perhaps `Rows`, which are not held.
      targets: [samples, ...].
      scaling: offset and scale that uint8 inputs go through when they are used; None: they are used as they are.
    """

    inputs: Any
    targets: Any
    scaling: Scaling

    @property
    def num_bytes(self) -> int:
        """Of inputs and targets, as they would lie on a device."""
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in self[:2])

    def read(self, ids: np.ndarray | None = None) -> "Samples":
        """Arrays of them all, or of ids [...]: inputs and targets [..., ...]; padding takes row 0."""
        if ids is None:
            return self._replace(inputs=np.asarray(self.inputs), targets=np.asarray(self.targets))
        places = np.maximum(ids, 0)
        return self._replace(inputs=self.inputs[places], targets=self.targets[places])


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


def training(data: Dataset) -> Samples:
    """The training split, on the host and unread."""
    return Samples(data.train_inputs, data.train_targets, _scaling(data))


def evaluated(data: Dataset, splits: Sequence[Split]) -> Samples:
    """Splits one after the other, on the host and unread."""
    inputs, targets = ([getattr(split, name) for split in splits] for name in ("inputs", "targets"))
    inputs, targets = (arrays[0] if len(arrays) == 1 else rows.concatenate(arrays) for arrays in (inputs, targets))
    return Samples(inputs, targets, _scaling(data))


def gather(samples: Samples, ids: jax.Array) -> Batch:
    """The rows of ids [rows]; padding has weight 0."""
    places = jnp.maximum(ids, 0)
    return Batch(
        scale_bytes(samples.inputs.at[places].get(mode="promise_in_bounds"), samples.scaling),
        samples.targets.at[places].get(mode="promise_in_bounds"),
        (ids != batches.PADDING).astype(jnp.float32),
    )


def scale_bytes(inputs: jax.Array, scaling: Scaling) -> jax.Array:
    """uint8 images as float32, scaled; everything else as it is."""
    if inputs.dtype != jnp.uint8:
        return inputs
    inputs = inputs.astype(jnp.float32)
    if scaling is None:
        return inputs
    offset, scale = (jnp.broadcast_to(array, inputs.shape) for array in scaling)
    return (inputs - offset) * scale


def _scaling(data: Dataset) -> Scaling:
    return (data.scaling.offset, data.scaling.scale) if data.scaling and not data.scaled_on_host else None
