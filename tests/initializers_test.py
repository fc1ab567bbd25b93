"""Tests of jaxnn/initializers.py: the moments and bounds that each name promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.initializers import INITIALIZERS

FAN_IN, FAN_OUT = 400, 250
COUNT = FAN_IN * FAN_OUT
TRUNCATED = 2 / 0.87962566103423978  # cut at two deviations of the normal that has the promised one after the cut
UNIFORM = 3**0.5  # half width over deviation

PROMISES = {  # name: (variance, bound over deviation)
    "lecun_normal": (1 / FAN_IN, TRUNCATED),
    "he_normal": (2 / FAN_IN, TRUNCATED),
    "glorot_uniform": (2 / (FAN_IN + FAN_OUT), UNIFORM),
    "torch_default": (1 / (3 * FAN_IN), UNIFORM),
}


def kernel(name, seed=0):
    return np.asarray(INITIALIZERS[name].kernel(jax.random.key(seed), (FAN_IN, FAN_OUT), jnp.float32), np.float64)


class TestInitializers:
    @pytest.mark.parametrize("name", PROMISES)
    def test_kernel_has_the_promised_moments_and_bounds(self, name):
        """Within five standard errors: of the mean s/sqrt(n), of the variance at most s^2 sqrt(2/n)."""
        variance, bound = PROMISES[name]
        values = kernel(name)
        assert abs(values.mean()) < 5 * (variance / COUNT) ** 0.5
        assert abs(values.var() / variance - 1) < 5 * (2 / COUNT) ** 0.5
        limit = bound * variance**0.5
        assert 0.99 * limit < np.abs(values).max() <= limit * (1 + np.finfo(np.float32).eps)

    @pytest.mark.parametrize("name", PROMISES)
    def test_kernel_depends_on_the_key_alone(self, name):
        np.testing.assert_array_equal(kernel(name), kernel(name))
        assert (kernel(name) != kernel(name, 1)).mean() > 0.99

    def test_zeros(self):
        assert not kernel("zeros").any()

    @pytest.mark.parametrize("name", sorted(set(INITIALIZERS) - {"torch_default"}))
    def test_bias_is_zero(self, name):
        bias = INITIALIZERS[name].bias(FAN_IN)(jax.random.key(0), (FAN_OUT,), jnp.float32)
        np.testing.assert_array_equal(bias, np.zeros(FAN_OUT, np.float32), strict=True)

    def test_torchs_bias_is_uniform_by_fan_in(self):
        bias = np.asarray(INITIALIZERS["torch_default"].bias(16)(jax.random.key(0), (COUNT,), jnp.float32), np.float64)
        assert 0.99 * 0.25 < np.abs(bias).max() <= 0.25
        assert abs(bias.mean()) < 5 * (0.25 / UNIFORM) / COUNT**0.5
        assert abs(bias.var() / (0.25**2 / 3) - 1) < 5 * (2 / COUNT) ** 0.5
