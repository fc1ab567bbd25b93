"""Bit for bit what jax.random draws, from Python numbers and from traced ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxnn import threefry

words = st.integers(0, 2**31 - 1)


class TestBits:
    @given(
        seed=words,
        step=words,
        layer=words,
        p=st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]),
    )
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_fold_in_and_bernoulli_are_jaxs(self, seed, step, layer, p):
        ours = threefry.fold_in(threefry.fold_in(threefry.key(seed), step), layer)
        theirs = jax.random.fold_in(
            jax.random.fold_in(jax.random.key(seed), step), layer
        )
        assert list(map(int, ours)) == jax.random.key_data(theirs).tolist()
        np.testing.assert_array_equal(
            threefry.bernoulli(ours, np.float32(p), (5, 7)),
            jax.random.bernoulli(theirs, np.float32(p), (5, 7)),
        )

    def test_traced_and_under_x64(self):
        def draw(step):
            return threefry.bernoulli(
                threefry.fold_in(threefry.key(3), step), np.float32(0.5), (64,)
            )

        expected = jax.random.bernoulli(
            jax.random.fold_in(jax.random.key(3), 9), np.float32(0.5), (64,)
        )
        np.testing.assert_array_equal(jax.jit(draw)(9), expected)
        with jax.enable_x64(True):
            np.testing.assert_array_equal(jax.jit(draw)(9), expected)

    @pytest.mark.parametrize(("first", "rows"), [(0, 12), (5, 3), (11, 1), (4, 0)])
    def test_later_rows_are_a_part_of_the_whole(self, first, rows):
        key = threefry.key(5)
        whole = threefry.bernoulli(key, np.float32(0.5), (12, 3, 5))
        part = threefry.bernoulli(key, np.float32(0.5), (rows, 3, 5), jnp.int32(first))
        np.testing.assert_array_equal(part, whole[first : first + rows])


class TestCounters:
    @given(first=words, rows=st.integers(0, 3), columns=st.sampled_from([1, 3, 70_000]))
    @example(first=2**31 - 1, rows=2, columns=70_000)
    @example(first=2**32 // 48 - 1, rows=3, columns=48)  # crosses 2**32
    @settings(deadline=None, max_examples=20, derandomize=True)
    def test_are_the_two_words_of_64_bit_indices(self, first, rows, columns):
        expected = np.uint64(first * columns) + np.arange(
            rows * columns, dtype=np.uint64
        )
        high, low = jax.jit(threefry.counters, static_argnums=0)((rows, columns), first)
        np.testing.assert_array_equal(high, expected >> np.uint64(32))
        np.testing.assert_array_equal(low, expected % np.uint64(2**32))
