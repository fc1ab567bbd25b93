"""Tests of jaxnn/augmentation.py, and that its twin and the oracle see the same."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import torch_ref.augmentation
import torch_ref.dropout
from jaxnn import augmentation
from jaxnn.dropout import mask_source
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.augmentation import augment as by_oracle
from parity.oracle.dropout import Masks

ROWS, HEIGHT, WIDTH, CHANNELS = 24, 5, 4, 2
IMAGES = np.random.default_rng(0).standard_normal((ROWS, HEIGHT, WIDTH, CHANNELS))
IMAGES = IMAGES.astype(np.float32)
WAYS = {
    "crop": dict(random_crop=2),
    "flip": dict(random_flip=True),
    "both": dict(random_crop=1, random_flip=True),
}
SEED, STEP = 3, 5


def augmented(images=IMAGES, step=STEP, first_row=0, **flags):
    source = mask_source(SEED, step, first_row)
    return np.asarray(
        augmentation.augment(Experiment(**flags), jnp.asarray(images), source)
    )


def candidates(image, random_crop=0, random_flip=False):
    """Every image that the flags may make of one, by cutting a padded copy."""
    padded = np.pad(image, ((random_crop,) * 2, (random_crop,) * 2, (0, 0)))
    places = range(2 * random_crop + 1)
    cuts = [padded[y : y + HEIGHT, x : x + WIDTH] for y in places for x in places]
    return cuts + [cut[:, ::-1] for cut in cuts] if random_flip else cuts


def chosen(flags):
    """The place of each augmented image among its candidates."""
    found = []
    for image, made in zip(IMAGES, augmented(**flags)):
        is_it = [np.array_equal(made, one) for one in candidates(image, **flags)]
        assert sum(is_it) == 1
        found.append(is_it.index(True))
    return found


@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_makes_one_of_the_images_it_may(self, way):
        """And of 24 rows not all the same."""
        assert len(set(chosen(WAYS[way]))) > 1

    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_twin_and_oracle_make_the_same_to_the_bit(self, way, dtype):
        images = IMAGES.astype(dtype)
        ours = augmented(images, first_row=7, **WAYS[way])
        source = torch_ref.dropout.mask_source(SEED, STEP, 7)
        experiment = Experiment(**WAYS[way])
        theirs = torch_ref.augmentation.augment(
            experiment, torch.tensor(images), source
        )
        np.testing.assert_array_equal(theirs.numpy(), ours)
        third = by_oracle(experiment, images, Masks(SEED, STEP, 7))
        np.testing.assert_array_equal(third, ours)

    def test_belongs_to_the_row_of_the_batch(self, way):
        """Whatever rank or microbatch it falls to."""
        parts = [
            augmented(IMAGES[first : first + 8], first_row=first, **WAYS[way])
            for first in (0, 8, 16)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), augmented(**WAYS[way]))

    def test_each_step_draws_anew(self, way):
        assert (augmented(**WAYS[way]) != augmented(step=STEP + 1, **WAYS[way])).any()


class TestAugment:
    def test_without_flags_images_are_as_they_were(self):
        images = jnp.asarray(IMAGES)
        assert augmentation.augment(Experiment(), images, None) is images

    def test_shares_no_bits_with_dropout(self):
        """A layer's key folds in its index, far below."""
        assert augmentation.KEY == torch_ref.augmentation.KEY > 10**6

    def test_all_places_are_as_likely(self):
        """Of 20,000 draws each of 9 places and 2 sides has a share within 5 standard
        deviations."""
        count = 20_000
        marked = np.zeros((count, 3, 3, 1), np.float32)
        marked[:, 1, 1] = 1
        marked[:, 1, 2] = 2
        made = augmented(marked, random_crop=1, random_flip=True)
        _, counts = np.unique(made.reshape(count, -1), axis=0, return_counts=True)
        assert len(counts) == 18
        share = count / 18
        assert np.abs(counts - share).max() < 5 * np.sqrt(share)
