"""Random crops and mirrorings of training images, drawn as dropout masks are.

Twin of torch_ref/augmentation.py. They move pixels and round nothing, so that both
stacks see the same images to the bit, in every precision.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxnn import threefry
from jaxnn.dropout import MaskSource
from jaxnn.experiment.flags.config import Experiment

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
    drawn = threefry.bits(key, (len(images), 3), source.first_row)
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
    sides = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = jnp.pad(images, sides)
    # The modulo favours some places by 2e-9 of their share for a margin of 4.
    places = np.uint32(2 * margin + 1)

    def cut(image, row, column):
        start = (row.astype(jnp.int32), column.astype(jnp.int32), np.int32(0))
        return lax.dynamic_slice(image, start, images.shape[1:])

    return jax.vmap(cut)(padded, rows % places, columns % places)


def flip(images: Array, bits: Array) -> Array:
    """Mirrors the images left to right whose random bits begin with 1."""
    is_flipped = bits >> np.uint32(31) == 1
    return jnp.where(is_flipped[:, None, None, None], images[:, :, ::-1], images)
