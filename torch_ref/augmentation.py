"""Random crops and mirrorings of training images, drawn as dropout masks are.

Twin of jaxnn/augmentation.py. They move pixels and round nothing, so that both stacks
see the same images to the bit, in every precision.
"""

import torch
from torch import Tensor as Array
from torch.nn import functional

from jaxnn.experiment.flags.config import Experiment
from torch_ref import threefry
from torch_ref.dropout import MaskSource

KEY = 2**30
"""Folded into the key of a step, where a dropout layer folds its index."""


def augment(experiment: Experiment, images: Array, source: MaskSource) -> Array:
    """Crops by `--random_crop`, then mirrors by `--random_flip`; neither: as they are.

    As He et al. 2016 do on CIFAR-10. What is drawn belongs to (seed, step, row of the
    global batch), whatever the number of devices and microbatches.

    Args:
      experiment: flags and seed.
      images: [rows, height, width, channels], scaled; other inputs without the flags.
      source: training context of the step.
    """
    if not (experiment.random_crop or experiment.random_flip):
        return images
    key = threefry.fold_in(source.key, KEY)
    drawn = threefry.bits(key, (len(images), 3), source.first_row, images.device)
    if experiment.random_crop:
        images = crop(images, experiment.random_crop, drawn[:, 0], drawn[:, 1])
    return flip(images, drawn[:, 2]) if experiment.random_flip else images


def crop(images: Array, margin: int, rows: Array, columns: Array) -> Array:
    """Surrounds images by zeros and cuts one of their size from each.

    Args:
      images: [rows, height, width, channels].
      margin: pixels of zeros on each side.
      rows: [rows] random bits, which choose among the 2 margin + 1 first rows.
      columns: likewise the first columns.
    """
    count, height, width, _ = images.shape
    padded = functional.pad(images, (0, 0, margin, margin, margin, margin))
    # The modulo favours some places by 2e-9 of their share for a margin of 4.
    places = 2 * margin + 1
    images_at = torch.arange(count, device=images.device)[:, None, None]
    rows_at = _unsigned(rows)[:, None] % places + _indices(height, images)
    columns_at = _unsigned(columns)[:, None] % places + _indices(width, images)
    return padded[images_at, rows_at[:, :, None], columns_at[:, None, :]]


def flip(images: Array, bits: Array) -> Array:
    """Mirrors the images left to right whose random bits begin with 1."""
    # The first bit of an int32 is its sign.
    return torch.where((bits < 0)[:, None, None, None], images.flip(2), images)


def _indices(count: int, like: Array) -> Array:
    return torch.arange(count, device=like.device)


def _unsigned(bits: Array) -> Array:
    return bits.long() & 0xFFFFFFFF
