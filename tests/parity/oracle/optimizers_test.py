"""Tests of parity/oracle/optimizers.py against jaxnn in float64, over ten steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn.optimizers
from jaxnn import train_step
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import optimizers

STEPS = 10
RATE = np.float32(0.01)
RNG = np.random.default_rng(0)
START = {
    "hidden_0/kernel": RNG.standard_normal((3, 2)),
    "hidden_0/bias": np.array([0.0, 1.0]),
    "norm/scale": np.ones(2),
    "layer/recurrent_kernel": RNG.standard_normal((2, 4)),
}
GRADIENTS = [
    {name: size * RNG.standard_normal(array.shape) for name, array in START.items()}
    for size in np.logspace(1, -6, STEPS)
]
PLAIN = Experiment(
    momentum=0.8, adam_b1=0.8, adam_b2=0.95, rmsprop_decay=0.9, adagrad_initial=0.01
)
OPTIONS = {
    "plain": {},
    "clipped": dict(clip_norm=0.5, l2=0.1),
    "masked": dict(l1=0.05, l2=0.1, decay_all=False),
    "not fused": dict(fused_adam=False),
}
RTOL = STEPS * 16 * np.finfo(np.float64).eps
"""Sixteen roundings of the largest number per step."""


def by_jaxnn(experiment):
    """Yields parameters and moments by name after each step."""
    optimizer = jaxnn.optimizers.OPTIMIZERS[experiment.optimizer](experiment)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, trace.unflatten(START))
        state = optimizer.transform.init(params)
        update = jax.jit(functools.partial(train_step.update, optimizer))
        for grads in GRADIENTS:
            params, state = update(
                params, state, jax.tree.map(jnp.asarray, trace.unflatten(grads)), RATE
            )
            yield (
                trace.flatten(params),
                trace.flatten(optimizer.moments(state)._asdict()),
            )


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_step_is_jaxnns(name, option):
    decay = dict(weight_decay=0.2) if name == "adamw" else {}
    experiment = PLAIN.replace(optimizer=name, **OPTIONS[option], **decay)
    params = START
    moments = optimizers.initial_moments(experiment, START)
    for number, theirs in enumerate(by_jaxnn(experiment)):
        params, moments = optimizers.update(
            experiment, params, GRADIENTS[number], moments, number, float(RATE)
        )
        for ours, other in zip((params, moments), theirs):
            assert ours.keys() == other.keys()
            for tensor, array in ours.items():
                np.testing.assert_allclose(
                    array,
                    other[tensor],
                    rtol=RTOL,
                    atol=RTOL * np.abs(array).max(),
                    err_msg=tensor,
                )


def test_none_is_left_out():
    assert optimizers.OPTIMIZERS.keys() == jaxnn.optimizers.OPTIMIZERS.keys()
    assert optimizers.DECAYED == jaxnn.optimizers.DECAYED


def test_initial_moments_are_the_transforms():
    for name in optimizers.OPTIMIZERS:
        experiment = PLAIN.replace(optimizer=name)
        optimizer = jaxnn.optimizers.OPTIMIZERS[name](experiment)
        with jax.enable_x64(True):
            theirs = optimizer.moments(
                optimizer.transform.init(
                    jax.tree.map(jnp.asarray, trace.unflatten(START))
                )
            )
        ours = optimizers.initial_moments(experiment, START)
        theirs = trace.flatten(theirs._asdict())
        assert ours.keys() == theirs.keys()
        assert all(
            (ours[tensor] == np.asarray(theirs[tensor])).all() for tensor in ours
        )


class TestClip:
    def test_by_hand(self):
        clipped = optimizers.clip({"a": np.array([3.0]), "b": np.array([4.0])}, 2.5)
        assert clipped["a"] == 3 / ((5 + 1e-6) / 2.5)

    def test_leaves_what_is_small_to_the_bit(self):
        grads = {"a": np.array([3.0, 4.0])}
        for max_norm in (0.0, 6.0):
            np.testing.assert_array_equal(
                optimizers.clip(grads, max_norm)["a"], grads["a"]
            )
