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


def published(seed, step, layer, keep, shape):
    """fold_in(fold_in(key(seed), step), layer), then one Bernoulli draw of the global
    batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), layer)
    return jax.random.bernoulli(key, np.float32(keep), shape)


def whole(seed=0, step=0, layer=0, rate=0.5):
    return np.asarray(dropout(ONES, rate, layer, mask_source(seed, step, 0)))


class TestMaskSource:
    def test_counts_as_arrays_or_numbers(self):
        number, array = (
            mask_source(3, 5, 0),
            mask_source(3, jnp.int32(5), jnp.int32(0)),
        )
        assert list(map(int, number.key)) == list(map(int, array.key))


class TestDropout:
    @given(
        seed=st.integers(0, 2**31 - 1),
        step=st.integers(0, 10**6),
        layer=st.integers(0, 3),
        ranks=st.integers(1, 4),
        microbatches=st.integers(1, 4),
        size=st.integers(1, 3),
        shape=st.lists(st.integers(1, 4), max_size=2),
    )
    @settings(deadline=None, max_examples=12, derandomize=True)
    def test_every_split_of_the_batch_draws_the_bits_of_the_whole(
        self, seed, step, layer, ranks, microbatches, size, shape
    ):
        """Rows are ordered by microbatch, then by rank."""
        parts = ranks * microbatches
        expected = published(seed, step, layer, 0.5, (parts * size, *shape))
        part = jax.jit(
            lambda x, row: dropout(x, 0.5, layer, mask_source(seed, step, row))
        )
        drawn = [part(jnp.ones((size, *shape)), row * size) for row in range(parts)]
        np.testing.assert_array_equal(np.concatenate(drawn), np.where(expected, 2, 0))

    def test_a_device_draws_its_own_rows_only(self):
        def draw(row):
            return dropout(ONES[:2], 0.5, 0, mask_source(0, 0, row))

        sizes = [
            variable.aval.size
            for equation in jax.make_jaxpr(draw)(jnp.int32(0)).eqns
            for variable in equation.outvars
        ]
        assert max(sizes) == 2 * UNITS

    @pytest.mark.parametrize("change", [dict(seed=1), dict(step=1), dict(layer=1)])
    def test_seed_step_and_layer_each_change_the_mask(self, change):
        np.testing.assert_array_equal(whole(), whole())
        assert (whole() != whole(**change)).any()

    def test_is_the_published_mask(self):
        mask = published(3, 5, 2, 0.75, (ROWS, UNITS))
        np.testing.assert_array_equal(
            whole(3, 5, 2, 0.25), np.where(mask, np.float32(1) / np.float32(0.75), 0)
        )

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_the_rest_is_divided_by_the_probability_of_keeping(self, rate, dtype):
        x = jnp.arange(1, 1001, dtype=dtype).reshape(100, 10)
        out = dropout(x, rate, 0, mask_source(0, 0, 0))
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
        source = mask_source(0, 0, 0)
        assert set(np.unique(dropout(x, 0.5, 0, source))) == {0, np.inf}
        slope = jax.grad(lambda x: dropout(x, 0.5, 0, source).sum())(ONES)
        np.testing.assert_array_equal(slope, whole())

    @pytest.mark.parametrize(
        ("rate", "source"), [(0.5, None), (0.0, mask_source(0, 0, 0))]
    )
    def test_outside_training_or_at_rate_zero_returns_x(self, rate, source):
        assert dropout(ONES, rate, 0, source) is ONES
