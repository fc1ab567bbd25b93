"""Dropout whose masks both stacks draw: threefry bits of (seed, step, layer). Twin of
torch_ref/dropout.py."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn import threefry


class MaskSource(NamedTuple):
    """What a network is given in training: where dropout masks come from, and which
    rows are samples.

    A mask belongs to the global batch: a device cuts out its own rows, so that the
    masks do not depend on the number of devices.

    Attributes:
      key: PRNG key of the step.
      first_row: () int32, the device's first row in the global batch.
      num_rows: rows of the global batch.
      weights: [rows] float32, 0 for rows that pad the batch; None: all are samples.
      axis_name: of the mapped devices whose rows make up the batch; None: this one
        alone.
      sync_batch_norm: whether batch normalization takes its statistics over all of
        them, or over each one's own rows.
    """

    key: threefry.Key
    first_row: jax.Array | int
    num_rows: int
    weights: jax.Array | None = None
    axis_name: str | None = None
    sync_batch_norm: bool = True


def mask_source(
    seed: int,
    step: jax.Array | int,
    first_row: jax.Array | int,
    num_rows: int,
    weights: jax.Array | None = None,
    axis_name: str | None = None,
    sync_batch_norm: bool = True,
) -> MaskSource:
    """The masks of one step, skipped steps counted."""
    key = threefry.fold_in(threefry.key(seed), step)
    return MaskSource(key, first_row, num_rows, weights, axis_name, sync_batch_norm)


def dropout(
    x: jax.Array, rate: float, layer: int, source: MaskSource | None
) -> jax.Array:
    """Zeroes each unit with probability `rate` and divides the rest by 1 - rate
    (Srivastava et al. 2014).

    Args:
      x: [rows, ...] activations of this device's rows.
      rate: probability of dropping, in [0, 1).
      layer: index of the dropout layer; each draws its own mask.
      source: None outside training, which returns x.
    """
    if source is None or rate == 0:
        return x
    keep = 1 - rate
    key = threefry.fold_in(source.key, layer)
    mask = threefry.bernoulli(key, np.float32(keep), (source.num_rows, *x.shape[1:]))
    mask = lax.dynamic_slice_in_dim(mask, source.first_row, x.shape[0])
    return jnp.where(mask, x / np.asarray(keep, x.dtype), np.zeros((), x.dtype))
