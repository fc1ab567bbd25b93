"""Tests of jaxnn/experiment/data/samples.py."""

import numpy as np
import pytest

from jaxnn.experiment.data import evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.lazy_rows import concatenate
from jaxnn.experiment.data.preprocessing import HostScaling, Scaling
from jaxnn.experiment.flags.config import Experiment

IMAGES = np.arange(5 * 2 * 2 * 1, dtype=np.uint8).reshape(5, 2, 2, 1)
CLASSES = np.array([2, 0, 1, 1, 0], np.int32)
SCALING = Scaling(np.array([1], np.float32), np.array([0.5], np.float32))
DATA = Dataset(
    IMAGES,
    CLASSES,
    IMAGES[:2],
    CLASSES[:2],
    "multiclass",
    ("a", "b", "c"),
    scaling=SCALING,
)


class TestSamples:
    def test_num_bytes(self):
        assert samples.training(DATA).num_bytes == 5 * 4 + 5 * 4

    @pytest.mark.parametrize("held", [True, False])
    def test_read(self, held):
        inputs = IMAGES if held else concatenate([IMAGES[:3], IMAGES[3:]])
        ours = samples.Samples(inputs, CLASSES, SCALING)
        np.testing.assert_array_equal(ours.read().inputs, IMAGES, strict=True)
        some = ours.read(np.array([[3, 1], [4, -1]], np.int32))
        np.testing.assert_array_equal(
            some.inputs, IMAGES[[[3, 1], [4, 0]]], strict=True
        )
        np.testing.assert_array_equal(
            some.targets, CLASSES[[[3, 1], [4, 0]]], strict=True
        )
        assert some.scaling is SCALING


class TestEvaluated:
    def test_splits_follow_each_other(self):
        splits = evaluation.splits(Experiment(evaluate_train=True), DATA)
        ours = samples.evaluated(DATA, splits).read()
        np.testing.assert_array_equal(
            ours.inputs, np.concatenate([IMAGES[:2], IMAGES]), strict=True
        )
        np.testing.assert_array_equal(
            ours.targets, np.concatenate([CLASSES[:2], CLASSES]), strict=True
        )


class TestScaling:
    def test_is_left_to_the_device_for_bytes_alone(self):
        assert samples.training(DATA).scaling == (SCALING.offset, SCALING.scale)
        table = Dataset(
            *2 * (np.ones((2, 1), np.float32), np.ones((2, 1), np.float32)),
            "regression",
            scaling=HostScaling(np.zeros(1), np.ones(1)),
        )
        assert samples.training(table).scaling is None


class TestExceedCache:
    def test_of_all_parts_together(self, monkeypatch):
        monkeypatch.setattr(samples, "MEBIBYTE", 10)
        train = samples.training(DATA)
        assert not samples.exceed_cache(Experiment(device_cache_mb=8), train, train)
        assert samples.exceed_cache(Experiment(device_cache_mb=7), train, train)
        assert not samples.exceed_cache(Experiment(device_cache_mb=4), train)
