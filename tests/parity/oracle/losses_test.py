"""Tests of parity/oracle/losses.py against jaxnn in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn.losses
from jaxnn.experiment.errors import UserError
from parity.oracle import losses
from parity.oracle.operations import total
from parity.oracle.tensor import gradients, lift, variable

RNG = np.random.default_rng(0)
SCORES = np.concatenate(
    [RNG.normal(0, 3, (20, 4)), 40 * np.eye(4), np.zeros((1, 4)), [[800.0, -800, 0, 1]]]
)
CLASSES = RNG.integers(0, 4, len(SCORES)).astype(np.int32)
# Confident, right answers.
CLASSES[20:24] = np.arange(4)
LABELS = RNG.integers(0, 2, SCORES.shape).astype(np.float64)
SHARES = RNG.dirichlet(np.ones(4), len(SCORES))
STEPS = RNG.normal(0, 3, (5, 3, 4)), RNG.integers(0, 4, (5, 3)).astype(np.int32)
WEIGHTS = RNG.uniform(0.5, 1, len(SCORES))
CASES = {
    "mse": ("mse", SCORES / 10, LABELS, 0.0),
    "binary_cross_entropy": ("binary_cross_entropy", SCORES, LABELS, 0.0),
    "cross_entropy": ("cross_entropy", SCORES, CLASSES, 0.0),
    "cross_entropy, steps": ("cross_entropy", *STEPS, 0.0),
    "cross_entropy, smoothed": ("cross_entropy", SCORES, CLASSES, 0.1),
    "cross_entropy, shares": ("cross_entropy", SCORES, SHARES, 0.0),
    "cross_entropy, shares smoothed": ("cross_entropy", SCORES, SHARES, 0.3),
    "hinge": ("hinge", SCORES, LABELS, 0.0),
    "multiclass_hinge": ("multiclass_hinge", SCORES, CLASSES, 0.0),
    "perceptron": ("perceptron", SCORES, LABELS, 0.0),
    "perceptron, classes": ("perceptron", SCORES, CLASSES, 0.0),
}


def test_none_is_left_out():
    assert (
        losses.LOSSES.keys()
        == jaxnn.losses.LOSSES.keys()
        == {case[0] for case in CASES.values()}
    )


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_jaxnns(case):
    # Relative to each value, also for confident examples (e^-40), whose digits both
    # keep. Exponents of up to 50 cost 50 eps; larger ones vanish.
    name, scores, targets, smoothing = CASES[case]
    weights = WEIGHTS[: len(scores)]
    with jax.enable_x64(True):
        theirs = jaxnn.losses.build(name, smoothing)
        values = np.asarray(theirs(jnp.asarray(scores), jnp.asarray(targets)))
        slope = jax.grad(lambda x: jnp.sum(theirs(x, jnp.asarray(targets)) * weights))(
            jnp.asarray(scores)
        )
    x = variable(scores)
    ours = losses.build(name, smoothing)(x, targets)
    np.testing.assert_allclose(ours.value, values, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(
        gradients(total(ours * weights), [x])[0], slope, rtol=1e-13, atol=1e-16
    )


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("mse", np.zeros(3)),
        ("binary_cross_entropy", np.zeros((3, 1))),
        ("hinge", np.zeros(2)),
        ("cross_entropy", np.zeros(3)),
        ("cross_entropy", np.zeros(2, np.int32)),
        ("multiclass_hinge", np.zeros((3, 2))),
        ("cross_entropy", np.zeros((3, 1))),
        ("perceptron", np.zeros((3, 1))),
    ],
)
def test_refuses_what_would_broadcast(name, targets):
    with pytest.raises(UserError, match=f"--loss: {name} takes"):
        losses.build(name)(lift(np.zeros((3, 2))), targets)
