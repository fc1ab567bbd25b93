"""Random crops and mirrorings of training images, by the bits that both stacks draw."""

import numpy as np

from jaxnn.experiment.flags.config import Experiment
from parity.oracle.dropout import Masks, bits

KEY = 2**30
"""Folded into the key of a step, where a dropout layer folds its index."""


def augment(experiment: Experiment, images: np.ndarray, masks: Masks) -> np.ndarray:
    """Crops by `--random_crop`, then mirrors by `--random_flip` (He et al. 2016).

    Args:
      experiment: flags.
      images: [rows, height, width, channels].
      masks: seed, step and first row.
    """
    if not (experiment.random_crop or experiment.random_flip):
        return images
    rows, columns, mirrored = bits(masks, KEY, (len(images), 3)).T
    if margin := experiment.random_crop:
        places = 2 * margin + 1
        corners = zip(rows % places, columns % places)
        images = np.stack([_cut(x, margin, *at) for x, at in zip(images, corners)])
    if not experiment.random_flip:
        return images
    # The first of 32 bits.
    pairs = zip(images, mirrored >= 2**31)
    return np.stack([x[:, ::-1] if is_flipped else x for x, is_flipped in pairs])


def _cut(image: np.ndarray, margin: int, row: int, column: int) -> np.ndarray:
    height, width, _ = image.shape
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    return padded[row : row + height, column : column + width]
