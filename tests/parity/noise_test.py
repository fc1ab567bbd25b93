"""The unit of measurement itself."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import noise

FORMATS = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
numbers = st.floats(-6e4, 6e4, allow_nan=False)


class TestUlp:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @given(x=numbers)
    @settings(deadline=None, max_examples=200, derandomize=True)
    def test_is_numpys_spacing(self, dtype, x):
        rounded = np.asarray(x, dtype)
        assert noise.ulp(rounded, np.dtype(dtype)) == np.spacing(np.abs(rounded)).astype(np.float64)

    def test_bfloat16_has_eight_bits(self):
        assert noise.ulp(np.array(1.0), np.dtype(ml_dtypes.bfloat16)) == 2.0**-7


class TestJitter:
    @pytest.mark.parametrize("dtype", FORMATS, ids=str)
    def test_moves_to_a_neighbour_or_stays(self, dtype):
        values = np.random.default_rng(0).standard_normal(1000).astype(dtype)
        moved = noise.jitter(values, np.random.default_rng(1))
        steps = np.abs(moved.astype(np.float64) - values.astype(np.float64)) / noise.ulp(values, dtype)
        assert moved.dtype == dtype
        assert steps.max() <= 1
        assert 0.2 < np.mean(steps > 0) < 0.8

    def test_tokens_stay(self):
        tokens = np.arange(9, dtype=np.int32)
        assert noise.jitter(tokens, np.random.default_rng(0)) is tokens

    def test_zero_stays_zero(self):
        assert not noise.jitter(np.zeros(9, np.float32), np.random.default_rng(0)).any()


class TestNoiseUnits:
    def test_of_a_rounding_is_its_uniform_distribution(self):
        """Rounding a float32 product to float16 is off by a uniform draw: sqrt(n/12) ulps in norm."""

        def square(inputs, dtype):
            x = inputs["x"].astype(np.float64)
            return {"y": (x * x).astype(dtype).astype(np.float64)}

        x = (1 + np.random.default_rng(0).random(4000) * 0.4).astype(np.float16)
        unit = noise.noise_units(square, {"x": x}, np.dtype(np.float16), np.random.default_rng(1))["y"]
        assert unit == pytest.approx(np.sqrt(4000 / 12) * 2.0**-10, rel=0.03)

    def test_exact_function_has_none(self):
        units = noise.noise_units(lambda inputs, dtype: {"y": inputs["x"].astype(np.float64)},
                                  {"x": np.ones(3, np.float32)}, np.dtype(np.float32), np.random.default_rng(0))
        assert units == {"y": 0.0}

    def test_overflow_in_every_draw_is_nan_not_zero(self):
        with np.errstate(over="ignore"):
            units = noise.noise_units(lambda inputs, dtype: {"y": (inputs["x"].astype(np.float64) * 2).astype(dtype)},
                                      {"x": np.full(3, 6e4, np.float16)}, np.dtype(np.float16),
                                      np.random.default_rng(0))
        assert np.isnan(units["y"])


class TestNorm:
    def test_is_euclidean(self):
        assert noise.norm(np.array([[3.0], [4.0]])) == 5.0

    def test_of_what_is_not_finite_is_nan(self):
        assert np.isnan(noise.norm(np.array([1.0, np.inf])))
