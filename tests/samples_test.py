"""Tests of jaxnn/samples.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import samples
from jaxnn.experiment import evaluation
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import Dataset
from jaxnn.experiment.preprocessing import HostScaling, Scaling
from jaxnn.experiment.rows import concatenate

IMAGES = np.arange(5 * 2 * 2 * 1, dtype=np.uint8).reshape(5, 2, 2, 1)
CLASSES = np.array([2, 0, 1, 1, 0], np.int32)
SCALING = Scaling(np.array([1], np.float32), np.array([0.5], np.float32))
DATA = Dataset(IMAGES, CLASSES, IMAGES[:2], CLASSES[:2], "multiclass", ("a", "b", "c"), scaling=SCALING)


class TestSamples:
    def test_num_bytes(self):
        assert samples.training(DATA).num_bytes == 5 * 4 + 5 * 4

    @pytest.mark.parametrize("held", [True, False])
    def test_read(self, held):
        inputs = IMAGES if held else concatenate([IMAGES[:3], IMAGES[3:]])
        ours = samples.Samples(inputs, CLASSES, SCALING)
        np.testing.assert_array_equal(ours.read().inputs, IMAGES, strict=True)
        some = ours.read(np.array([[3, 1], [4, -1]], np.int32))
        np.testing.assert_array_equal(some.inputs, IMAGES[[[3, 1], [4, 0]]], strict=True)
        np.testing.assert_array_equal(some.targets, CLASSES[[[3, 1], [4, 0]]], strict=True)
        assert some.scaling is SCALING


class TestEvaluated:
    def test_splits_follow_each_other(self):
        splits = evaluation.splits(Experiment(evaluate_train=True), DATA)
        ours = samples.evaluated(DATA, splits).read()
        np.testing.assert_array_equal(ours.inputs, np.concatenate([IMAGES[:2], IMAGES]), strict=True)
        np.testing.assert_array_equal(ours.targets, np.concatenate([CLASSES[:2], CLASSES]), strict=True)


class TestScaling:
    def test_is_left_to_the_device_for_bytes_alone(self):
        assert samples.training(DATA).scaling == (SCALING.offset, SCALING.scale)
        table = Dataset(*2 * (np.ones((2, 1), np.float32), np.ones((2, 1), np.float32)), "regression",
                        scaling=HostScaling(np.zeros(1), np.ones(1)))
        assert samples.training(table).scaling is None


class TestGather:
    def test_padding_has_no_weight(self):
        batch = jax.jit(samples.gather)(samples.training(DATA).read(), jnp.array([4, -1, 2]))
        np.testing.assert_array_equal(batch.inputs, SCALING.apply(IMAGES[[4, 0, 2]]), strict=True)
        np.testing.assert_array_equal(batch.targets, CLASSES[[4, 0, 2]], strict=True)
        np.testing.assert_array_equal(batch.weights, np.float32([1, 0, 1]), strict=True)


class TestScaleBytes:
    def test_bytes_are_scaled_by_channel(self):
        images = np.arange(2 * 3 * 3 * 2, dtype=np.uint8).reshape(2, 3, 3, 2)
        offset, scale = np.array([1, 2], np.float32), np.array([0.5, 0.25], np.float32)
        scaled = samples.scale_bytes(jnp.asarray(images), (offset, scale))
        np.testing.assert_array_equal(scaled, (images.astype(np.float32) - offset) * scale, strict=True)

    def test_without_scaling_they_become_floats(self):
        scaled = samples.scale_bytes(jnp.array([[0, 255]], jnp.uint8), None)
        np.testing.assert_array_equal(scaled, np.array([[0, 255]], np.float32), strict=True)

    @pytest.mark.parametrize("dtype", ["int32", "float32"])
    def test_all_else_stays(self, dtype):
        x = jnp.ones((2, 3), dtype)
        assert samples.scale_bytes(x, None) is x
