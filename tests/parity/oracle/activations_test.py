"""Tests of parity/oracle/activations.py against jaxnn in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn.activations
from parity.oracle import activations
from parity.oracle.operations import total
from parity.oracle.tensor import gradients, variable

X = np.concatenate([np.linspace(-30, 30, 61), [-1e-9, 1e-9, -0.0]]).reshape(4, 16)
WEIGHTS = np.random.default_rng(0).uniform(0.5, 1, X.shape)
ATOL = 64 * np.finfo(np.float64).eps * 30
"""Several roundings of numbers up to 30, and two implementations of erfc."""


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_values_and_derivatives_are_jaxnns(name):
    # X contains 0, where the kinks are.
    with jax.enable_x64(True):
        theirs = jaxnn.activations.build(name, leaky_relu_alpha=0.2)
        slope = jax.grad(lambda x: jnp.sum(theirs(x) * WEIGHTS))(jnp.asarray(X))
        values = np.asarray(theirs(jnp.asarray(X)))
    x = variable(X)
    ours = activations.build(name, leaky_relu_alpha=0.2)(x)
    np.testing.assert_allclose(ours.value, values, rtol=0, atol=ATOL)
    np.testing.assert_allclose(
        gradients(total(ours * WEIGHTS), [x])[0], slope, rtol=0, atol=ATOL
    )


def test_none_is_left_out():
    assert activations.ACTIVATIONS.keys() == jaxnn.activations.ACTIVATIONS.keys()
