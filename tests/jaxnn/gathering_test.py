"""Tests of jaxnn/gathering.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import gathering
from jaxnn.experiment.data.preprocessing import Scaling
from jaxnn.experiment.data.samples import Samples

IMAGES = np.arange(5 * 2 * 2 * 1, dtype=np.uint8).reshape(5, 2, 2, 1)
CLASSES = np.array([2, 0, 1, 1, 0], np.int32)
SCALING = Scaling(np.array([1], np.float32), np.array([0.5], np.float32))
HELD = Samples(IMAGES, CLASSES, (SCALING.offset, SCALING.scale))


class TestGather:
    def test_padding_has_no_weight(self):
        batch = jax.jit(gathering.gather)(HELD, jnp.array([4, -1, 2]))
        np.testing.assert_array_equal(
            batch.inputs, SCALING.apply(IMAGES[[4, 0, 2]]), strict=True
        )
        np.testing.assert_array_equal(batch.targets, CLASSES[[4, 0, 2]], strict=True)
        np.testing.assert_array_equal(batch.weights, np.float32([1, 0, 1]), strict=True)


class TestScaleBytes:
    def test_bytes_are_scaled_by_channel(self):
        images = np.arange(2 * 3 * 3 * 2, dtype=np.uint8).reshape(2, 3, 3, 2)
        offset, scale = np.array([1, 2], np.float32), np.array([0.5, 0.25], np.float32)
        scaled = gathering.scale_bytes(jnp.asarray(images), (offset, scale))
        np.testing.assert_array_equal(
            scaled, (images.astype(np.float32) - offset) * scale, strict=True
        )

    def test_without_scaling_they_become_floats(self):
        scaled = gathering.scale_bytes(jnp.array([[0, 255]], jnp.uint8), None)
        np.testing.assert_array_equal(
            scaled, np.array([[0, 255]], np.float32), strict=True
        )

    @pytest.mark.parametrize("dtype", ["int32", "float32"])
    def test_all_else_stays(self, dtype):
        x = jnp.ones((2, 3), dtype)
        assert gathering.scale_bytes(x, None) is x
