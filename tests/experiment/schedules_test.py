"""Tests of jaxnn/experiment/schedules.py."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment import schedules
from jaxnn.experiment.config import Experiment

RATES, STEPS = st.floats(1e-6, 10), st.integers(1, 2000)
fast = settings(deadline=None, max_examples=50, derandomize=True)


class TestLearningRates:
    @given(RATES, STEPS)
    @fast
    def test_constant_is_the_rate_rounded_once(self, rate, steps):
        table = schedules.learning_rates(Experiment(learning_rate=rate), steps)
        np.testing.assert_array_equal(table, np.full(steps, rate, np.float32), strict=True)

    @given(RATES, STEPS)
    @fast
    def test_cosine_is_the_formula_to_half_an_ulp(self, rate, steps):
        """One float32 ulp allows for the last bit of two libraries' cosines, which may turn the rounding."""
        table = schedules.learning_rates(Experiment(learning_rate=rate, schedule="cosine"), steps)
        formula = [rate * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
        assert table.dtype == np.float32
        np.testing.assert_array_max_ulp(table, np.array(formula, np.float32), maxulp=1)

    @given(RATES, STEPS)
    @fast
    def test_cosine_falls_from_the_peak_and_stays_positive(self, rate, steps):
        table = schedules.learning_rates(Experiment(learning_rate=rate, schedule="cosine"), steps)
        assert table[0] == np.float32(rate)
        assert (np.diff(table) <= 0).all()
        assert table[-1] > 0


class TestConstant:
    def test_is_one(self):
        np.testing.assert_array_equal(schedules.constant(np.array([0, 0.5, 0.99])), [1, 1, 1])


class TestCosine:
    def test_landmarks_to_one_float64_ulp(self):
        np.testing.assert_array_max_ulp(schedules.cosine(np.array([0, 1 / 3, 0.5])), np.array([1, 0.75, 0.5]), maxulp=1)
