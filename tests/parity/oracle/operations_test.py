"""Tests of parity/oracle/operations.py."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from parity.oracle import operations
from parity.oracle.tensor import gradients, variable
from tests.parity.oracle.differences import check_derivatives

UNARY = ("exp", "log", "log1p", "tanh", "erfc", "magnitude", "sigmoid", "softplus")
ENDS = np.array([-800.0, -40.0, -1e-20, 0.0, 1e-20, 40.0, 800.0])
EPS = np.finfo(np.float64).eps
few = settings(max_examples=25, deadline=None)
shapes = array_shapes(max_dims=3, max_side=4)
seeds = st.integers(0, 2**16)


def slopes(function, x):
    """Returns the derivative of an elementwise function at each element of x."""
    x = variable(x)
    return gradients(operations.total(function(x)), [x])[0]


class TestPrimitives:
    @pytest.mark.parametrize("name", UNARY)
    @given(shape=shapes, seed=seeds)
    @few
    def test_unary_against_differences(self, name, shape, seed):
        check_derivatives(getattr(operations, name), (shape,), seed)

    @given(
        pair=mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3),
        seed=seeds,
    )
    @few
    def test_maximum_and_where_against_differences(self, pair, seed):
        # Continuous draws are further apart than the steps of the differences.
        check_derivatives(operations.maximum, pair.input_shapes, seed)
        condition = (
            np.random.default_rng(seed).integers(0, 2, pair.result_shape).astype(bool)
        )
        check_derivatives(
            lambda x, y: operations.where(condition, x, y), pair.input_shapes, seed
        )

    @given(shape=shapes, seed=seeds, data=st.data())
    @few
    def test_sums_and_means_against_differences(self, shape, seed, data):
        axes = data.draw(
            st.none() | st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple)
        )
        keepdims = data.draw(st.booleans())
        for function, reference in (
            (operations.total, np.sum),
            (operations.mean, np.mean),
        ):
            check_derivatives(
                lambda x, f=function: f(x, axes, keepdims), (shape,), seed
            )
            x = np.random.default_rng(seed).uniform(size=shape)
            np.testing.assert_allclose(
                function(x, axes, keepdims).value,
                reference(x, axis=axes, keepdims=keepdims),
                rtol=8 * EPS,
            )

    @given(shape=shapes, seed=seeds, data=st.data())
    @few
    def test_other_arrangements_against_differences(self, shape, seed, data):
        axes = tuple(data.draw(st.permutations(range(len(shape)))))
        axis = data.draw(st.integers(0, len(shape) - 1))
        check_derivatives(lambda x: operations.transpose(x, axes), (shape,), seed)
        check_derivatives(lambda x: operations.reshape(x, (-1,)), (shape,), seed)
        check_derivatives(
            lambda x, y: operations.concatenate([x, y, x], axis), (shape, shape), seed
        )
        check_derivatives(
            lambda x, y: operations.stack([x, y], axis), (shape, shape), seed
        )
        check_derivatives(lambda x: operations.pad(x, 1, 2, axis, 0.5), (shape,), seed)

    @given(shape=array_shapes(min_dims=1, max_dims=3, max_side=4), seed=seeds)
    @few
    def test_softmax_and_log_sum_exp_against_differences(self, shape, seed):
        check_derivatives(operations.softmax, (shape,), seed)
        check_derivatives(operations.log_sum_exp, (shape,), seed)


class TestValues:
    """Against NumPy and SciPy, up to a few roundings on both sides."""

    x = np.linspace(-6, 6, 101)

    @pytest.mark.parametrize(
        ("name", "reference"),
        [
            ("sigmoid", scipy.special.expit),
            ("erfc", scipy.special.erfc),
            ("softplus", lambda x: np.logaddexp(0, x)),
            ("tanh", np.tanh),
            ("exp", np.exp),
            ("magnitude", np.abs),
        ],
    )
    def test_of_functions(self, name, reference):
        np.testing.assert_allclose(
            getattr(operations, name)(self.x).value, reference(self.x), rtol=16 * EPS
        )

    def test_of_arrangements(self):
        x = np.arange(24.0).reshape(2, 3, 4)
        np.testing.assert_array_equal(
            operations.stack([x, x + 1], 1).value, np.stack([x, x + 1], 1)
        )
        np.testing.assert_array_equal(
            operations.concatenate([x, x], -1).value, np.concatenate([x, x], -1)
        )
        np.testing.assert_array_equal(
            operations.pad(x, 1, 2, 1, -1.0).value,
            np.pad(x, ((0, 0), (1, 2), (0, 0)), constant_values=-1),
        )
        np.testing.assert_array_equal(
            operations.transpose(x, (2, 0, 1)).value, x.transpose(2, 0, 1)
        )

    def test_of_softmax_far_out(self):
        np.testing.assert_array_equal(
            operations.softmax(np.array([1000.0, 0, -np.inf])).value, [1, 0, 0]
        )
        assert operations.log_sum_exp(
            np.array([1000.0, 1000.0])
        ).value == 1000 + np.log(2)


class TestAtTheEnds:
    """No overflow and no cancellation. pytest turns a warning into an error."""

    def test_sigmoid(self):
        reference = scipy.special.expit
        np.testing.assert_allclose(
            operations.sigmoid(ENDS).value, reference(ENDS), rtol=4 * EPS
        )
        np.testing.assert_allclose(
            slopes(operations.sigmoid, ENDS),
            reference(ENDS) * reference(-ENDS),
            rtol=4 * EPS,
        )

    def test_softplus(self):
        np.testing.assert_allclose(
            operations.softplus(ENDS).value, np.logaddexp(0, ENDS), rtol=4 * EPS
        )
        np.testing.assert_allclose(
            slopes(operations.softplus, ENDS), scipy.special.expit(ENDS), rtol=4 * EPS
        )


class TestTies:
    def test_maximum_gives_the_second_of_equals_the_derivative(self):
        x = variable(np.array([1.0, 2.0, 3.0]))
        y = variable(np.full(3, 2.0))
        first, second = gradients(operations.total(operations.maximum(x, y)), [x, y])
        np.testing.assert_array_equal(first, [0, 0, 1])
        np.testing.assert_array_equal(second, [1, 1, 0])

    def test_magnitude_rises_at_zero(self):
        np.testing.assert_array_equal(
            slopes(operations.magnitude, np.array([-1.0, 0.0, 1.0])), [-1, 1, 1]
        )
