"""Dropout whose masks both stacks draw: threefry bits of (seed, step, layer).

Twin of torch_ref/dropout.py.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import threefry
from jaxnn.settings import Setting, cast, is_off


class MaskSource(NamedTuple):
    """Training context of a forward pass: dropout masks, and which rows are samples.

    A mask belongs to the rows of the global batch, of which each device draws its own,
    so that masks do not depend on the number of devices.

    Attributes:
      key: PRNG key of the step.
      first_row: () int32, index of this device's first row in the global batch.
      weights: [rows] float32, 0 for padding rows; None if all rows are samples.
      axis_name: mapped axis of the devices that share the batch; None for one device.
      sync_batch_norm: True if batch normalization takes its statistics over the rows of
        all devices, False if over those of each device.
    """

    key: threefry.Key
    first_row: Array | int
    weights: Array | None = None
    axis_name: str | None = None
    sync_batch_norm: bool = True


def mask_source(
    seed: Setting,
    step: Array | int,
    first_row: Array | int,
    weights: Array | None = None,
    axis_name: str | None = None,
    sync_batch_norm: bool = True,
) -> MaskSource:
    """Returns the training context of one step; `step` counts skipped steps too."""
    key = threefry.fold_in(threefry.key(seed), step)
    return MaskSource(key, first_row, weights, axis_name, sync_batch_norm)


def dropout(x: Array, rate: Setting, layer: int, source: MaskSource | None) -> Array:
    """Zeroes each unit with probability `rate` and divides the rest by 1 - rate.

    Srivastava et al. 2014, scaled in training instead of at test time.

    Args:
      x: [rows, ...] activations of this device's rows.
      rate: probability of dropping a unit, in [0, 1).
      layer: index of the dropout layer; each draws its own mask.
      source: training context, or None outside training, which returns x.
    """
    if source is None or is_off(rate):
        return x
    keep = 1 - rate
    key = threefry.fold_in(source.key, layer)
    # The bits of an element depend on its index in the global batch alone.
    mask = threefry.bernoulli(key, cast(keep, np.float32), x.shape, source.first_row)
    return jnp.where(mask, x / cast(keep, x.dtype), np.zeros((), x.dtype))
