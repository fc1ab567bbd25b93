"""Tests of jaxnn/dropout.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.dropout import dropout, mask_source

ROWS, UNITS = 24, 7
ONES = jnp.ones((ROWS, UNITS))


def whole(seed=0, step=0, layer=0, rate=0.5):
    return np.asarray(dropout(ONES, rate, layer, mask_source(seed, step, 0, ROWS)))


class TestMaskSource:
    def test_counts_as_arrays_or_numbers(self):
        number, array = (
            mask_source(3, 5, 0, ROWS),
            mask_source(3, jnp.int32(5), jnp.int32(0), ROWS),
        )
        assert list(map(int, number.key)) == list(map(int, array.key))


class TestDropout:
    @given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(0, 3))
    @settings(deadline=None, max_examples=5, derandomize=True)
    def test_rows_do_not_depend_on_the_number_of_devices(self, seed, step, layer):
        expected = whole(seed, step, layer)
        assert 0 < np.count_nonzero(expected) < expected.size
        for devices in (2, 3, 8):
            rows = ROWS // devices
            parts = [
                dropout(
                    ONES[:rows],
                    0.5,
                    layer,
                    mask_source(seed, step, device * rows, ROWS),
                )
                for device in range(devices)
            ]
            np.testing.assert_array_equal(np.concatenate(parts), expected)

    @pytest.mark.parametrize("change", [dict(seed=1), dict(step=1), dict(layer=1)])
    def test_seed_step_and_layer_each_change_the_mask(self, change):
        np.testing.assert_array_equal(whole(), whole())
        assert (whole() != whole(**change)).any()

    def test_is_the_published_mask(self):
        """fold_in(fold_in(key(seed), step), layer), then one Bernoulli draw of the
        global batch."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 5), 2)
        mask = jax.random.bernoulli(key, np.float32(0.75), (ROWS, UNITS))
        np.testing.assert_array_equal(
            whole(3, 5, 2, 0.25), np.where(mask, np.float32(1) / np.float32(0.75), 0)
        )

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_the_rest_is_divided_by_the_probability_of_keeping(self, rate, dtype):
        x = jnp.arange(1, 1001, dtype=dtype).reshape(100, 10)
        out = dropout(x, rate, 0, mask_source(0, 0, 0, 100))
        assert out.dtype == dtype
        kept = out != 0
        np.testing.assert_array_equal(
            out[kept], (x / jnp.asarray(1 - rate, dtype))[kept]
        )
        # Within five standard errors of a binomial.
        assert (
            abs(float(kept.mean()) - (1 - rate)) < 5 * (rate * (1 - rate) / 1000) ** 0.5
        )

    def test_a_dropped_infinity_is_zero_and_has_no_gradient(self):
        x = jnp.full((ROWS, UNITS), jnp.inf)
        source = mask_source(0, 0, 0, ROWS)
        assert set(np.unique(dropout(x, 0.5, 0, source))) == {0, np.inf}
        slope = jax.grad(lambda x: dropout(x, 0.5, 0, source).sum())(ONES)
        np.testing.assert_array_equal(slope, whole())

    @pytest.mark.parametrize(
        ("rate", "source"), [(0.5, None), (0.0, mask_source(0, 0, 0, ROWS))]
    )
    def test_outside_training_or_at_rate_zero_returns_x(self, rate, source):
        assert dropout(ONES, rate, 0, source) is ONES
