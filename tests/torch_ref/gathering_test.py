"""Tests of torch_ref/gathering.py."""

import jax
import numpy as np
import pytest
import torch

from jaxnn import gathering as jax_gathering
from jaxnn.experiment.data.preprocessing import Scaling
from jaxnn.experiment.data.samples import Samples
from torch_ref import gathering


class TestGather:
    @pytest.mark.parametrize("place", [gathering.put, gathering.put_scaling])
    def test_padding_weighs_nothing(self, place):
        held = Samples(
            np.arange(6, dtype=np.float32).reshape(3, 2), np.array([7, 8, 9]), None
        )
        rows = gathering.gather(
            place(held, torch.device("cpu")), torch.tensor([2, 1, -1])
        )
        np.testing.assert_array_equal(rows.inputs, [[4, 5], [2, 3], [0, 1]])
        np.testing.assert_array_equal(rows.targets, [9, 8, 7])
        np.testing.assert_array_equal(rows.weights, [1, 1, 0])

    @pytest.mark.parametrize("place", [gathering.put, gathering.put_scaling])
    def test_bytes_are_scaled_where_they_are_used(self, place):
        images, scaling = (
            np.array([[10, 20], [30, 40]], np.uint8),
            (np.float32([10, 0]), np.float32([1, 0.5])),
        )
        rows = gathering.gather(
            place(Samples(images, np.zeros(2), scaling), torch.device("cpu")),
            torch.tensor([1, 0]),
        )
        np.testing.assert_array_equal(
            rows.inputs, np.float32([[20, 20], [0, 10]]), strict=True
        )


class TestScaleBytes:
    @pytest.mark.parametrize(
        "scaling",
        [None, Scaling(np.float32([0.1, 70, 130]), np.float32([1 / 255, 0.3, 0.02]))],
    )
    def test_is_jaxnns_bit_for_bit(self, scaling):
        images = (
            np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)).astype(np.uint8)
        )
        arrays = (scaling.offset, scaling.scale) if scaling else None
        tensors = (
            (torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1]))
            if arrays
            else None
        )
        wanted = jax.jit(jax_gathering.scale_bytes)(images, arrays)
        np.testing.assert_array_equal(
            gathering.scale_bytes(torch.from_numpy(images), tensors),
            wanted,
            strict=True,
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
    def test_leaves_other_inputs(self, dtype):
        inputs = torch.ones(2, 3, dtype=dtype)
        assert gathering.scale_bytes(inputs, (torch.zeros(3), torch.zeros(3))) is inputs
