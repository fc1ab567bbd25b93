"""The unit of measurement itself."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parity import noise

FORMATS = [
    np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
]
numbers = st.floats(-6e4, 6e4, allow_nan=False)


class TestUlp:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @given(x=numbers)
    @example(x=float(np.nextafter(8, 0)))  # its logarithm is rounded to 3
    @settings(deadline=None, max_examples=200, derandomize=True)
    def test_is_numpys_spacing(self, dtype, x):
        rounded = np.asarray(x, dtype)
        assert noise.ulp(rounded, np.dtype(dtype)) == np.spacing(
            np.abs(rounded)
        ).astype(np.float64)

    def test_bfloat16_has_eight_bits(self):
        assert noise.ulp(np.array(1.0), np.dtype(ml_dtypes.bfloat16)) == 2.0**-7


class TestJitter:
    @pytest.mark.parametrize("dtype", FORMATS, ids=str)
    def test_moves_to_a_neighbour_or_stays(self, dtype):
        values = np.random.default_rng(0).standard_normal(1000).astype(dtype)
        moved = noise.jitter(values, np.random.default_rng(1))
        steps = np.abs(
            moved.astype(np.float64) - values.astype(np.float64)
        ) / noise.ulp(values, dtype)
        assert moved.dtype == dtype
        assert steps.max() <= 1
        assert 0.2 < np.mean(steps > 0) < 0.8

    def test_tokens_stay(self):
        tokens = np.arange(9, dtype=np.int32)
        assert noise.jitter(tokens, np.random.default_rng(0)) is tokens

    def test_zero_stays_zero(self):
        assert not noise.jitter(np.zeros(9, np.float32), np.random.default_rng(0)).any()


def rounding(function, dtype):
    """inputs -> distance of a function rounded to a dtype from itself in float64."""

    def distances(inputs):
        exact = function(inputs["x"].astype(np.float64))
        return {"y": noise.norm(exact.astype(dtype).astype(np.float64) - exact)}

    return distances


class TestNoise:
    def test_of_a_rounding_is_its_uniform_distribution(self):
        """Rounding a product to float16 is off by a uniform draw: sqrt(n/12) ulps in
        norm."""
        x = (1 + np.random.default_rng(0).random(4000) * 0.4).astype(np.float16)
        unit = noise.Noise(rounding(np.square, np.float16), {"x": x}, 1).units(
            noise.DRAWS
        )["y"]
        assert unit == pytest.approx(np.sqrt(4000 / 12) * 2.0**-10, rel=0.03)

    def test_exact_function_has_none(self):
        assert noise.Noise(
            rounding(np.abs, np.float32), {"x": np.ones(3, np.float32)}, 0
        ).units(5) == {"y": 0.0}

    def test_overflow_in_every_draw_is_nan_not_zero(self):
        with np.errstate(over="ignore"):
            units = noise.Noise(
                rounding(lambda x: 2 * x, np.float16),
                {"x": np.full(3, 6e4, np.float16)},
                0,
            ).units(5)
        assert np.isnan(units["y"])

    def test_more_draws_keep_those_before(self):
        """The first draw is the inputs themselves; others are made once."""
        seen = []
        unmoved = np.float32(np.random.default_rng(0).random(50))
        noise_of = noise.Noise(
            lambda inputs: seen.append(inputs["x"]) or {"y": float(len(seen))},
            {"x": unmoved},
            0,
        )
        assert noise_of.units(2) == {"y": np.sqrt((1 + 4) / 2)}
        assert noise_of.units(3) == {"y": np.sqrt((1 + 4 + 9) / 3)}
        assert seen[0] is unmoved
        assert len(seen) == 3

    @given(
        distances=st.lists(
            st.floats(0.01, 100), min_size=noise.DRAWS, max_size=noise.DRAWS
        )
    )
    @settings(deadline=None, max_examples=100, derandomize=True)
    def test_a_few_draws_bound_all_of_them(self, distances):
        """What `judge.Rounds` rests on: the unit of 5 draws is at least sqrt(2/5) of
        that of the first 2."""
        left = iter(distances)
        noise_of = noise.Noise(lambda inputs: {"y": next(left)}, {"x": np.ones(1)}, 0)
        few, all_of_them = (
            noise_of.units(draws)["y"] for draws in (noise.FEW_DRAWS, noise.DRAWS)
        )
        assert all_of_them >= (1 - 1e-12) * few * np.sqrt(noise.FEW_DRAWS / noise.DRAWS)


class TestKinkUnits:
    def test_is_the_root_mean_square_over_seeds(self):
        kinks = noise.Kinks(lambda seed: {"y": float(seed)})
        assert kinks.units(4) == {"y": np.sqrt((0 + 1 + 4 + 9) / 4)}
        assert kinks.units(2) == {"y": np.sqrt(1 / 2)}

    def test_raises_what_is_smaller_and_only_that(self):
        kinks = noise.Kinks(lambda seed: {"x": 1.0, "y": 1.0})
        assert kinks.larger({"x": 0.5, "y": 2.0}, 3) == {"x": 1.0, "y": 2.0}


class TestNorm:
    def test_is_euclidean(self):
        assert noise.norm(np.array([[3.0], [4.0]])) == 5.0

    def test_of_what_is_not_finite_is_nan(self):
        assert np.isnan(noise.norm(np.array([1.0, np.inf])))
