"""Tests of jaxnn/experiment/data/sources/random_classes.py."""

import numpy as np
import pytest

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.sources.random_classes import (
    DISTANCE,
    FOLLOWED,
    blobs,
    markov,
)
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

IMAGES = Experiment(
    dataset="blobs", sample_shape=(6, 5, 3), num_classes=4, num_samples=200
)
TOKENS = Experiment(
    dataset="markov", sequence_length=12, num_classes=20, num_samples=300
)


class TestBlobs:
    @pytest.mark.parametrize(
        ("shape", "kind"),
        [((7,), "table"), ((9, 2), "sequence"), ((6, 5, 3), "image")],
    )
    def test_shapes(self, shape, kind):
        data = blobs(IMAGES.replace(sample_shape=shape))
        assert data.train_inputs.shape == (200, *shape)
        assert data.test_inputs.shape == (40, *shape)
        assert data.train_inputs.dtype == np.float32
        assert (data.kind, data.task, data.num_outputs) == (kind, "multiclass", 4)
        assert len(data.feature_names) == (7 if kind == "table" else 0)

    def test_two_classes_are_a_binary_task(self):
        data = blobs(IMAGES.replace(num_classes=2))
        assert (data.task, data.train_targets.shape) == ("binary", (200, 1))

    @pytest.mark.parametrize("shape", [(40,), (9, 4), (6, 5, 3)])
    def test_classes_are_around_their_means(self, shape):
        data = blobs(IMAGES.replace(sample_shape=shape, num_samples=4000))
        for number in range(4):
            of_class = data.train_inputs[data.train_targets == number]
            mean = of_class.reshape(-1, shape[-1]).mean(axis=0, dtype=np.float64)
            assert np.linalg.norm(mean) == pytest.approx(DISTANCE, abs=0.2)
            assert (of_class - mean).std() == pytest.approx(1, abs=0.05)

    def test_seed_decides(self):
        first, again, other = (
            blobs(IMAGES.replace(split_seed=seed)) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first.train_inputs, again.train_inputs)
        np.testing.assert_array_equal(first.train_targets, again.train_targets)
        assert (first.train_inputs != other.train_inputs).all()


class TestMarkov:
    def test_shapes(self):
        data = markov(TOKENS)
        assert data.train_inputs.shape == data.train_targets.shape == (300, 12)
        assert data.test_inputs.shape == (60, 12)
        assert data.train_inputs.dtype == data.train_targets.dtype == np.int32
        assert (data.kind, data.task, data.num_outputs) == ("tokens", "language", 20)
        assert data.signature.per_step

    def test_targets_follow_the_inputs(self):
        data = markov(TOKENS)
        np.testing.assert_array_equal(
            data.train_inputs[:, 1:], data.train_targets[:, :-1]
        )

    def test_one_permutation_foretells_three_tokens_of_four(self):
        data = markov(TOKENS.replace(num_samples=3000))
        counts = np.zeros((20, 20))
        np.add.at(counts, (data.train_inputs, data.train_targets), 1)
        successor = counts.argmax(axis=1)
        assert sorted(successor) == list(range(20))
        right = successor[data.test_inputs] == data.test_targets
        # A uniform token is right as well, one time in 20. Five standard errors.
        expected = FOLLOWED + (1 - FOLLOWED) / 20
        assert abs(right.mean() - expected) < 5 * (0.25 / right.size) ** 0.5


class TestRefused:
    @pytest.mark.parametrize(
        ("experiment", "message"),
        [
            (IMAGES.replace(sample_shape=(10**6, 10**6)), "--sample_shape, --num_samp"),
            (TOKENS.replace(sequence_length=2**31), "--sequence_length, --num_samples"),
            (IMAGES.replace(num_folds=3), "--num_folds: --dataset=blobs brings a "),
            (TOKENS.replace(num_folds=3), "--num_folds: --dataset=markov brings a "),
        ],
    )
    def test_in_one_line(self, experiment, message):
        with pytest.raises(UserError, match=rf"^{message}[^\n]*$"):
            load_dataset(experiment)
