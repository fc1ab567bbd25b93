"""Tests of networks/nudge.py: functions whose products are moved by rounding."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from parity.noise import FLOAT32
from parity.own.networks.nudge import nudged

BF16 = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(0)
X, W = (RNG.standard_normal(s).astype(np.float32) for s in ((4, 5), (5, 5)))


@jax.custom_vjp
def straight(x):
    return jnp.round(x)


straight.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


def scanned(x, w):
    return lax.scan(lambda c, _: (jnp.tanh(c @ w), c), x, None, length=2)[0] @ w


def convolved(x, w):
    image = x.reshape(1, 4, 5, 1)
    return lax.conv_general_dilated(
        image,
        w[:3, :3, None, None],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


FUNCTIONS = {
    "matmul": lambda x, w: x @ w,
    "conv": convolved,
    "relu": lambda x, w: jax.nn.relu(x @ w),
    "custom_jvp": lambda x, w: jax.nn.silu(jax.nn.softmax(x @ w)),
    "custom_vjp": lambda x, w: straight(x @ w) + x @ w,
    "scan": scanned,
    "remat": lambda x, w: jax.checkpoint(lambda a: jnp.tanh(a @ w))(x),
    "vmap": lambda x, w: jax.vmap(lambda row: row @ w)(x),
    "jit": lambda x, w: jax.jit(lambda a: a @ w)(x),
    "cond": lambda x, w: lax.cond(True, jnp.sin, jnp.cos, x @ w),
    "where": lambda x, w: jnp.where(jnp.arange(5)[None] > 2, x @ w, 0.0),
}


def value_and_gradients(function, seed=None, compute=FLOAT32):
    """Returns the sum of a function's squares and its gradients."""

    def squared(x, w):
        return jnp.sum(jnp.square(function(x, w)))

    moved = squared if seed is None else nudged(squared, seed, compute)
    value, grads = jax.jit(jax.value_and_grad(moved, (0, 1)))(X, W)
    return np.concatenate([np.ravel(array) for array in (value, *grads)])


def distance(left, right):
    return np.linalg.norm(left - right) / np.linalg.norm(right)


class TestNudged:
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_value_and_gradients_are_within_rounding(self, name):
        exact = value_and_gradients(FUNCTIONS[name])
        moved = value_and_gradients(FUNCTIONS[name], seed=0)
        assert 0 < distance(moved, exact) < 1e-5

    @pytest.mark.parametrize("name", ["matmul", "remat", "custom_jvp"])
    def test_a_narrow_dtype_moves_farther(self, name):
        exact = value_and_gradients(FUNCTIONS[name])
        moved = value_and_gradients(FUNCTIONS[name], 0, BF16)
        assert 1e-4 < distance(moved, exact) < 0.1

    def test_is_the_same_by_seed(self):
        moved = [value_and_gradients(FUNCTIONS["relu"], seed) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(moved[0], moved[1])
        assert (moved[0] != moved[2]).any()

    def test_moves_every_product_on_its_own(self):
        def products(x, w):
            return x @ w, (x @ w, jax.jit(lambda a: a @ w)(x))

        plain = X @ W
        first, (second, third) = nudged(products, 0, BF16)(X, W)
        moves = [np.asarray(found - plain) for found in (first, second, third)]
        assert all((move != 0).mean() > 0.9 for move in moves)
        assert (moves[0] != moves[1]).any()
        assert (moves[1] != moves[2]).any()

    def test_keeps_dtypes_and_what_is_no_product(self):
        def function(x, w):
            return {"ids": jnp.arange(3), "sum": x + x, "half": (x @ w).astype(BF16)}

        moved = nudged(function, 0, FLOAT32)(X, W)
        np.testing.assert_array_equal(moved["ids"], np.arange(3))
        np.testing.assert_array_equal(moved["sum"], X + X)
        assert moved["half"].dtype == BF16

    def test_the_seed_may_be_traced(self):
        moved = jax.jit(lambda seed: nudged(jnp.matmul, seed, FLOAT32)(X, W))
        assert (np.asarray(moved(1)) != np.asarray(moved(2))).any()
