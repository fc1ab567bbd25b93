"""Tests of parity/own/networks/masks.py: torch's dropout masks in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxnn.experiment.errors import UserError
from parity.own.networks.masks import played_back

KEPT = np.random.default_rng(0).random((3, 4)) > 0.5
X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def linen(x):
    layer = nn.Dropout(0.5, deterministic=False)
    return layer.apply({}, x, rngs={"dropout": jax.random.key(0)})


def of_nnx(x):
    return nnx.Dropout(0.5, rngs=nnx.Rngs(0))(x)


def function(x):
    kept = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return jnp.where(kept, x / 0.5, 0)


class TestPlayedBack:
    @pytest.mark.parametrize("drop", [linen, of_nnx, function])
    def test_keeps_what_torch_kept(self, drop):
        with played_back([KEPT]):
            dropped = drop(X)
        np.testing.assert_array_equal(dropped, np.where(KEPT, X * 2, 0))

    def test_masks_come_in_their_order(self):
        with played_back([KEPT, ~KEPT]):
            first, second = function(X), function(X)
        np.testing.assert_array_equal(first + second, X * 2)

    def test_images_have_their_channels_last(self):
        kept = np.random.default_rng(0).random((2, 3, 4, 5)) > 0.5
        with played_back([kept]):
            drawn = jax.random.bernoulli(jax.random.key(0), 0.5, (2, 4, 5, 3))
        np.testing.assert_array_equal(drawn, kept.transpose(0, 2, 3, 1))

    def test_outside_jax_draws_its_own(self):
        before = jax.random.bernoulli
        with played_back([]):
            assert jax.random.bernoulli is not before
        assert jax.random.bernoulli is before

    def test_refuses_more_draws_than_masks(self):
        with pytest.raises(UserError, match=r"drew 0 masks .* the port draws more"):  # noqa: SIM117
            with played_back([]):
                function(X)

    def test_refuses_fewer_draws_than_masks(self):
        with pytest.raises(UserError, match=r"drew 2 masks .* the port 1; call"):  # noqa: SIM117
            with played_back([KEPT, KEPT]):
                function(X)

    def test_refuses_another_shape(self):
        with pytest.raises(UserError, match=r"mask 0 .* \(3, 4\) in torch, \(4, 3\)"):  # noqa: SIM117
            with played_back([KEPT]):
                function(X.T)

    def test_an_error_inside_is_not_hidden(self):
        with pytest.raises(ZeroDivisionError), played_back([KEPT]):
            raise ZeroDivisionError
