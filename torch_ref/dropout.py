"""Dropout whose masks both stacks draw: threefry bits of (seed, step, layer). Twin of
jaxnn/dropout.py."""

from typing import NamedTuple

import numpy as np
import torch

from torch_ref import threefry


class MaskSource(NamedTuple):
    """What a network is given in training: where dropout masks come from, and which
    rows are samples.

    A mask belongs to the global batch: a rank cuts out its own rows, so that the masks
    do not depend on the number of ranks.

    Attributes:
      key: PRNG key of the step.
      first_row: the rank's first row in the global batch.
      num_rows: rows of the global batch.
      weights: [rows] float32, 0 for rows that pad the batch; None: all are samples.
      sync_batch_norm: whether batch normalization takes its statistics over all ranks,
        or over each one's own rows.
    """

    key: threefry.Key
    first_row: int
    num_rows: int
    weights: torch.Tensor | None = None
    sync_batch_norm: bool = True


def mask_source(
    seed: int,
    step: int,
    first_row: int,
    num_rows: int,
    weights: torch.Tensor | None = None,
    sync_batch_norm: bool = True,
) -> MaskSource:
    """The masks of one step, skipped steps counted."""
    return MaskSource(
        threefry.fold_in(threefry.key(seed), step),
        first_row,
        num_rows,
        weights,
        sync_batch_norm,
    )


def dropout(
    x: torch.Tensor, rate: float, layer: int, source: MaskSource | None
) -> torch.Tensor:
    """Zeroes each unit with probability `rate` and divides the rest by 1 - rate
    (Srivastava et al. 2014).

    Args:
      x: [rows, ...] activations of this rank's rows.
      rate: probability of dropping, in [0, 1).
      layer: index of the dropout layer; each draws its own mask.
      source: None outside training, which returns x.
    """
    if source is None or rate == 0:
        return x
    keep = 1 - rate
    key = threefry.fold_in(source.key, layer)
    mask = threefry.bernoulli(
        key, np.float32(keep), (source.num_rows, *x.shape[1:]), x.device
    )
    mask = mask[source.first_row : source.first_row + x.shape[0]]
    return torch.where(mask, x / x.new_tensor(keep), x.new_zeros(()))
