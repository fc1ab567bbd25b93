"""Tests of jaxnn/optimizers.py against a float64 loop and torch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxnn import optimizers
from jaxnn.experiment.config import Experiment

STEPS, RATE = 10, 0.01
GRADIENTS = np.random.default_rng(0).standard_normal((STEPS, 3, 2)) * np.logspace(0, -6, STEPS)[:, None, None]
START = np.random.default_rng(1).standard_normal((3, 2))
DOUBLE = np.finfo(np.float64).eps
PLAIN = Experiment(fused_adam=False, adam_b1=0.8, adam_b2=0.95, adam_eps=1e-6)


def train(optimizer, dtype):
    """Params after each step, and the final state."""
    params = {"w": jnp.asarray(START, dtype)}
    state, path = optimizer.transform.init(params), []
    for gradient in GRADIENTS:
        direction, state = optimizer.transform.update({"w": jnp.asarray(gradient, dtype)}, state, params)
        params = jax.tree.map(lambda p, d: p - np.asarray(RATE, dtype) * d, params, direction)
        path.append(np.asarray(params["w"]))
    return np.array(path), state


def adam_by_hand(b1, b2, eps):
    """Kingma & Ba 2015, Algorithm 1: params after each step, then both moments."""
    params, first, second, path = START.copy(), 0.0, 0.0, []
    for t, gradient in enumerate(GRADIENTS, 1):
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        params = params - RATE * (first / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
        path.append(params)
    return np.array(path), first, second


class TestSgd:
    def test_direction_is_the_gradient(self):
        optimizer = optimizers.sgd(Experiment(optimizer="sgd"))
        gradient = {"w": jnp.array([1.0, -2.0])}
        state = optimizer.transform.init(gradient)
        direction, state = optimizer.transform.update(gradient, state, gradient)
        chex.assert_trees_all_equal(direction, gradient)
        assert optimizer.moments(state) == ({}, {})
        assert optimizer.with_moments(optimizer.moments(state), 3) == state


class TestAdam:
    @pytest.mark.parametrize("fused", [False, True])
    def test_is_algorithm_1(self, fused):
        """In float64: the moments within 4 ulps, ten steps of a hundredth within 4 ulps of the parameters.

        Fused rounds the betas and eps to float32, and 1 - b^t cancels the same way on both sides.
        """
        experiment = PLAIN.replace(fused_adam=fused)
        rounded = np.float32 if fused else float
        settings = [float(rounded(x)) for x in (experiment.adam_b1, experiment.adam_b2, experiment.adam_eps)]
        with jax.enable_x64(True):
            path, state = train(optimizers.adam(experiment), jnp.float64)
        expected, first, second = adam_by_hand(*settings)
        np.testing.assert_allclose(path, expected, rtol=0, atol=4 * DOUBLE * np.abs(START).max())
        np.testing.assert_allclose(state.mu["w"], first, rtol=0, atol=4 * DOUBLE * np.abs(GRADIENTS[0]).max())
        np.testing.assert_allclose(state.nu["w"], second, rtol=4 * DOUBLE)
        assert state.count == STEPS

    def test_is_torchs(self):
        """In float64, and within 4 ulps of the parameters after every one of ten steps."""
        with jax.enable_x64(True):
            path, state = train(optimizers.adam(PLAIN), jnp.float64)
        weight = torch.nn.Parameter(torch.from_numpy(START.copy()))
        theirs = torch.optim.Adam([weight], lr=RATE, betas=(PLAIN.adam_b1, PLAIN.adam_b2), eps=PLAIN.adam_eps)
        for gradient, ours in zip(GRADIENTS, path):
            weight.grad = torch.from_numpy(gradient.copy())
            theirs.step()
            np.testing.assert_allclose(ours, weight.detach(), rtol=0, atol=4 * DOUBLE * np.abs(START).max())
        np.testing.assert_allclose(state.nu["w"], theirs.state[weight]["exp_avg_sq"], rtol=4 * DOUBLE)

    def test_fused_takes_its_betas_as_float32(self):
        """1 - float32(0.999) is below 0.001 by 1.3e-5 of itself, and the second moment with it."""
        gradient = {"w": jnp.ones(1)}

        def second(fused):
            optimizer = optimizers.adam(Experiment(fused_adam=fused))
            return optimizer.transform.update(gradient, optimizer.transform.init(gradient))[1].nu["w"]

        np.testing.assert_array_max_ulp(second(False), np.float32([1 - 0.999]), maxulp=1)
        np.testing.assert_array_max_ulp(second(True), np.float32([1 - np.float64(np.float32(0.999))]), maxulp=1)

    def test_float32_stays_float32(self):
        path, state = train(optimizers.adam(PLAIN), jnp.float32)
        assert path.dtype == np.float32
        chex.assert_tree_all_finite(state)
        # Ten directions of size 1, each within 16 ulps, times a hundredth; and ten roundings of the parameters.
        atol = np.finfo(np.float32).eps * STEPS * (16 * RATE + 0.5 * np.abs(START).max())
        np.testing.assert_allclose(path, adam_by_hand(0.8, 0.95, 1e-6)[0], rtol=0, atol=atol)

    def test_moments_are_read_and_replaced(self):
        optimizer = optimizers.adam(PLAIN)
        _, state = train(optimizer, jnp.float32)
        moments = optimizer.moments(state)
        assert moments.first is state.mu
        assert moments.second is state.nu
        chex.assert_trees_all_equal(optimizer.with_moments(moments, STEPS), state)


class TestOptimizers:
    def test_names_are_the_flags_choices(self):
        field = Experiment.__dataclass_fields__["optimizer"]
        assert tuple(optimizers.OPTIMIZERS) == field.metadata["choices"]
