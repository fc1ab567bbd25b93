"""Tests of parity/oracle/initializers.py: the distributions are jaxnn's."""

import jax
import numpy as np
import pytest
import scipy.stats

import jaxnn.initializers
from parity.oracle.initializers import INITIALIZERS

SHAPES = {"dense": (200, 100), "convolution": (3, 3, 20, 40)}
UNBOUNDED = ("normal", "orthogonal")


def test_none_is_left_out():
    assert INITIALIZERS.keys() == jaxnn.initializers.INITIALIZERS.keys()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_kernels_and_biases_have_jaxnns_distribution(name, shape):
    # Two-sample Kolmogorov-Smirnov tests. The seeds are fixed; random ones would fail
    # each test with a probability of 1e-4.
    rng = np.random.default_rng(0)
    key = jax.random.key(0)
    shape = SHAPES[shape]
    ours = INITIALIZERS[name]
    theirs = jaxnn.initializers.INITIALIZERS[name]
    for draw, other, size in (
        (ours.kernel, theirs.kernel, shape),
        (ours.bias(25), theirs.bias(25), (2000,)),
    ):
        left = draw(rng, size)
        right = np.asarray(other(key, size))
        assert left.shape == size
        assert scipy.stats.ks_2samp(left.ravel(), right.ravel()).pvalue > 1e-4
        # Both come this close to the bound; a fan_in off by one moves it by 0.0018.
        if name not in UNBOUNDED:
            np.testing.assert_allclose(
                np.abs(left).max(), np.abs(right).max(), rtol=0.001
            )


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 2, 3, 4)])
def test_orthogonal_is(shape):
    # Orthonormal columns, or rows of a wide matrix, up to rounding.
    q = (
        INITIALIZERS["orthogonal"]
        .kernel(np.random.default_rng(0), shape)
        .reshape(-1, shape[-1])
    )
    product = q.T @ q if len(q) >= shape[-1] else q @ q.T
    np.testing.assert_allclose(
        product, np.eye(len(product)), rtol=0, atol=32 * np.finfo(np.float64).eps
    )
