"""Tests of jaxnn/activations.py against float64 formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations

EPS, TINY = np.finfo(np.float32).eps, np.finfo(np.float32).tiny
GRID = np.concatenate([np.linspace(-30, 30, 1201), [-1e4, -100, -1e-30, 1e-30, 100, 1e4]]).astype(np.float32)


def values_and_slopes(activation):
    return activation(GRID), jax.vmap(jax.grad(activation))(GRID)


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
class TestActivations:
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_keeps_shape_and_dtype(self, name, dtype):
        out = activations.ACTIVATIONS[name](jnp.ones((2, 3), dtype))
        assert (out.shape, out.dtype) == ((2, 3), dtype)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_finite_with_finite_gradients_at_1e4(self, name, dtype):
        activation = activations.ACTIVATIONS[name]
        for x in jnp.array([-1e4, 0, 1e4], dtype):
            value, slope = jax.value_and_grad(activation)(x)
            assert jnp.isfinite(value)
            assert jnp.isfinite(slope)


class TestIdentity:
    def test_is_exact(self):
        values, slopes = values_and_slopes(activations.identity)
        np.testing.assert_array_equal(values, GRID)
        np.testing.assert_array_equal(slopes, np.ones_like(GRID))


class TestRelu:
    def test_is_exact(self):
        values, slopes = values_and_slopes(activations.relu)
        np.testing.assert_array_equal(values, np.maximum(GRID, 0))
        np.testing.assert_array_equal(slopes, (GRID > 0).astype(np.float32))

    def test_slope_at_zero_is_zero(self):
        assert jax.grad(activations.relu)(0.0) == 0
        assert jax.grad(activations.relu)(-0.0) == 0


class TestSigmoid:
    def test_within_four_ulps(self):
        """exp, a sum and a division, each within an ulp or two; results below the smallest normal flush to 0."""
        with np.errstate(over="ignore"):
            exact = 1 / (1 + np.exp(-GRID.astype(np.float64)))
        values, slopes = values_and_slopes(activations.sigmoid)
        np.testing.assert_allclose(values, exact, rtol=4 * EPS, atol=TINY)
        # s(1 - s) loses the digits of 1 - s near s = 1: an ulp of 1 remains.
        np.testing.assert_allclose(slopes, exact * (1 - exact), rtol=4 * EPS, atol=EPS)

    def test_saturates_exactly(self):
        np.testing.assert_array_equal(activations.sigmoid(jnp.array([-1e4, 0.0, 1e4])), [0, 0.5, 1])


class TestTanh:
    def test_within_four_ulps(self):
        exact = np.tanh(GRID.astype(np.float64))
        values, slopes = values_and_slopes(activations.tanh)
        np.testing.assert_allclose(values, exact, rtol=4 * EPS, atol=TINY)
        # 1 - t^2 loses digits near t = 1: a few ulps of 1 remain.
        np.testing.assert_allclose(slopes, 1 - exact**2, rtol=0, atol=4 * EPS)

    def test_saturates_exactly(self):
        np.testing.assert_array_equal(activations.tanh(jnp.array([-1e4, 0.0, 1e4])), [-1, 0, 1])
