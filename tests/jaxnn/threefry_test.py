"""Bit for bit what jax.random draws, from Python numbers and from traced ones."""

import jax
import numpy as np
from hypothesis import given, settings
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
