"""Tests of parity/oracle/convolution.py against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.oracle import convolution
from parity.oracle.operations import total
from parity.oracle.tensor import gradients, variable
from tests.parity.oracle.differences import check_derivatives

few = settings(max_examples=20, deadline=None)


def by_loops(x, kernel, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = kernel.shape[:2]
    return np.stack(
        [
            np.stack(
                [
                    np.tensordot(x[:, i : i + height, j : j + width], kernel, 3)
                    for j in range(0, x.shape[2] - width + 1, stride)
                ],
                axis=1,
            )
            for i in range(0, x.shape[1] - height + 1, stride)
        ],
        axis=1,
    )


class TestConv:
    @given(
        height=st.integers(3, 6),
        width=st.integers(3, 6),
        size=st.sampled_from([1, 2, 3]),
        stride=st.integers(1, 3),
        padding=st.integers(0, 2),
    )
    @few
    def test_against_loops_and_differences(self, height, width, size, stride, padding):
        # Sums of at most 18 products of numbers below 4.
        rng = np.random.default_rng(0)
        shapes = (2, height, width, 2), (size, size, 2, 3)
        x, kernel = (rng.uniform(-2, 2, shape) for shape in shapes)
        y = convolution.conv(variable(x), variable(kernel), stride, padding).value
        np.testing.assert_allclose(
            y,
            by_loops(x, kernel, stride, padding),
            rtol=0,
            atol=18 * 4 * 18 * np.finfo(np.float64).eps,
        )
        check_derivatives(
            lambda x, kernel: convolution.conv(x, kernel, stride, padding), shapes, 0
        )


class TestPools:
    @pytest.mark.parametrize("name", convolution.POOLS)
    def test_by_hand_with_a_border_left_out(self, name):
        x = np.arange(15.0).reshape(1, 5, 3, 1)
        expected = {"max": [[4], [10]], "average": [[2], [8]]}[name]
        np.testing.assert_array_equal(
            convolution.POOLS[name](variable(x), 2).value[0, :, :, 0], expected
        )

    @pytest.mark.parametrize("name", convolution.POOLS)
    def test_against_differences(self, name):
        check_derivatives(lambda x: convolution.POOLS[name](x, 2), ((2, 5, 4, 3),), 0)

    def test_of_equal_values_the_first_gets_the_derivative(self):
        x = variable(np.ones((1, 2, 2, 1)))
        slopes = gradients(total(convolution.max_pool(x, 2)), [x])[0]
        np.testing.assert_array_equal(slopes[0, :, :, 0], [[1, 0], [0, 0]])

    def test_overlapping_windows_with_a_border(self):
        # All values are negative: padding with zeros would win.
        x = -np.arange(1.0, 17).reshape(1, 4, 4, 1)
        pooled = convolution.max_pool(variable(x), 3, stride=2, padding=1)
        np.testing.assert_array_equal(pooled.value[0, :, :, 0], [[-1, -2], [-5, -6]])

    def test_global_average(self):
        x = np.arange(12.0).reshape(1, 2, 3, 2)
        np.testing.assert_array_equal(
            convolution.global_average_pool(variable(x)).value, x.mean(axis=(1, 2))
        )
