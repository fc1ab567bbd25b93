"""Tests of jaxnn/experiment/diagnosis.py."""

import jax
import numpy as np
import pytest

from jaxnn.activations import ACTIVATIONS
from jaxnn.experiment import diagnosis


class TestDueSteps:
    @pytest.mark.parametrize(
        ("plan", "steps"),
        [
            ([5, 5, 5], [3, 8, 13]),
            ([5, 5, 2], [3, 8, 10]),
            ([1, 1], [0, 1]),
            ([2], [0]),
        ],
    )
    def test_the_last_step_with_all_rows_of_a_batch(self, plan, steps):
        assert diagnosis.due_steps(plan) == steps


class TestLayers:
    def test_each_once_in_the_given_order(self):
        names = ["b/kernel", "b/bias", "a/c/kernel", "scale"]
        assert diagnosis.layers(names) == ["b", "a/c", "scale"]


class TestFlat:
    @pytest.mark.parametrize("name", diagnosis.FLAT)
    def test_where_the_derivative_is_below_a_twentieth_of_its_largest(self, name):
        x = np.linspace(-8, 8, 1000, dtype=np.float32)
        slope = np.abs(jax.vmap(jax.grad(ACTIVATIONS[name]))(x))
        flat = diagnosis.FLAT[name](x, np.asarray(ACTIVATIONS[name](x)))
        assert (slope[flat] < slope.max() / 20 + 1e-3).all()
        # The GELUs' slope crosses 0 between two places where it is steep.
        steep = (slope > slope.max() / 20) | (np.abs(x + 0.75) < 0.2)
        assert (flat | steep | (x < -2.2)).all()
