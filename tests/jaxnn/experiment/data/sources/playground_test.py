"""Points of the plane: their shapes, counts, classes and noise."""

import numpy as np
import pytest

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.sources.playground import INNER, PLAYGROUND
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


def load(name, **flags):
    flags = dict(num_samples=200, loss="binary_cross_entropy", **flags)
    return load_dataset(Experiment(dataset=name, **flags))


def points(name, **flags):
    data = load(name, **flags)
    return data.train_inputs.astype(np.float64), data.train_targets[:, 0]


every_set = pytest.mark.parametrize("name", PLAYGROUND)


@every_set
class TestEverySet:
    def test_has_as_many_of_each_class_in_both_splits(self, name):
        data = load(name)
        assert data.train_inputs.shape == (200, 2)
        assert data.test_inputs.shape == (40, 2)
        assert data.train_inputs.dtype == np.float32
        assert data.train_targets.sum() == 100
        assert data.test_targets.sum() == 20

    def test_is_the_split_seeds(self, name):
        first, again, other = (load(name, noise=0.1, split_seed=n) for n in (1, 1, 2))
        np.testing.assert_array_equal(first.train_inputs, again.train_inputs)
        np.testing.assert_array_equal(first.test_inputs, again.test_inputs)
        assert (first.train_inputs != other.train_inputs).any()
        assert not np.isin(first.test_inputs, first.train_inputs).all(axis=1).any()

    def test_folds_are_refused(self, name):
        with pytest.raises(UserError, match=f"^--num_folds: --dataset={name} "):
            load(name, num_folds=5)


class TestShapes:
    def test_circles_lie_on_two_radii(self):
        x, inner = points("circles")
        radii = np.linalg.norm(x, axis=1)
        np.testing.assert_allclose(radii, np.where(inner, INNER, 1), atol=1e-6)

    def test_moons_are_halves_of_unit_circles(self):
        x, lower = points("moons")
        centres = np.where(lower[:, None], [1, 0.5], [0, 0])
        radii = np.linalg.norm(x - centres, axis=1)
        np.testing.assert_allclose(radii, 1, atol=1e-6)

    def test_a_spiral_turned_by_half_is_the_other(self):
        """The angle gives the radius: 1 after one and a half turns."""
        x, second = points("spirals")
        x = np.where(second[:, None], -x, x)
        radii = np.linalg.norm(x, axis=1)
        turned = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi)
        turns = 1.5 * radii - turned
        np.testing.assert_allclose(turns, turns.round(), atol=1e-5)
        assert radii.max() <= 1

    def test_clouds_differ_in_sign_or_not(self):
        x, differ = points("xor_cloud")
        np.testing.assert_array_equal(x.prod(axis=1) < 0, differ)
        assert np.abs(x).max() <= 1


class TestNoise:
    @pytest.mark.parametrize("name", ["spirals", "xor_cloud"])
    def test_has_the_standard_deviation_asked_for(self, name):
        """Of 400 numbers: within five of its own standard deviations."""
        clean, noisy = (points(name, noise=noise)[0] for noise in (0, 0.01))
        moved = noisy - clean
        assert abs(moved.std() - 0.01) < 5 * 0.01 / np.sqrt(2 * moved.size)

    def test_is_scikit_learns_for_its_own(self):
        """It draws noise and order from one generator; along the radius of 200."""
        x, inner = points("circles", noise=0.01)
        moved = np.linalg.norm(x, axis=1) - np.where(inner, INNER, 1)
        assert abs(moved.std() - 0.01) < 5 * 0.01 / np.sqrt(2 * moved.size)

    def test_is_refused_elsewhere(self):
        with pytest.raises(UserError, match=r"^--noise: is for --dataset=circles, "):
            load_dataset(Experiment(noise=0.1))
