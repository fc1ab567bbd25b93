"""Tests of parity/free/verdict.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.free.judge_ends import sentence
from parity.free.spread import RUNS, Spread
from parity.free.verdict import CHAOTIC, DIVERGENCE, SAME, compare, judge
from parity.judging.measure import UNEQUAL

APART = np.arange(RUNS) - (RUNS - 1) / 2
"""Mean 0, spread sqrt(6)."""

SPREAD = 6**0.5


def ends(rounding=1.0, exact=1.0):
    """Returns the spread of runs whose single weight has mean 1."""
    return Spread(
        {"train_loss": np.ones(RUNS), "params/w": (1 + APART)[:, None]},
        {"train_loss": np.float64(1.0), "params/w": np.array([exact])},
        {"train_loss": 0.5, "params/w": rounding},
        {"train_loss": 1.0, "params/w": 1.0},
    )


def outcome(loss=1.0, weight=1.0):
    return {"train_loss": np.float64(loss), "params/w": np.array([weight])}


class TestCompare:
    def test_distance_in_spreads(self):
        found = compare(np.float64(2 * SPREAD), APART, np.float64(0), 0.1, 1.0, 8.0)
        assert found.z == pytest.approx(2)
        assert found.distance == pytest.approx(2 * SPREAD)
        assert found.spread == pytest.approx(SPREAD)
        assert found.detectable == pytest.approx(8 * SPREAD), (
            "absolute, as the mean is zero"
        )

    def test_rounding_is_the_least_unit(self):
        found = compare(
            np.float64(14.0), np.full(RUNS, 10.0), np.float64(10.5), 2.0, 1.0, 8.0
        )
        assert (found.z, found.spread, found.detectable) == (2.0, 0.0, 1.6)

    def test_distance_from_float64_is_the_least_unit(self):
        # Two stacks that each round in one direction are as far from each other as
        # either is from the exact result.
        found = compare(
            np.float64(14.0), np.full(RUNS, 10.0), np.float64(14.0), 2.0, 1.0, 8.0
        )
        assert (found.z, found.from_float64) == (1.0, 4.0)

    def test_push_multiplies_the_spread(self):
        assert compare(
            np.float64(6 * SPREAD), APART, None, 0.1, 3.0, 8.0
        ).z == pytest.approx(2)

    def test_spread_of_a_tensor_is_over_all_its_elements(self):
        runs = np.stack([APART, -APART], axis=1)
        assert compare(np.zeros(2), runs, None, 0.0, 1.0, 8.0).spread == pytest.approx(
            SPREAD * 2**0.5
        )

    def test_counts_the_runs_that_are_as_far_from_the_others(self):
        # A run at distance d from the mean of all is d RUNS / (RUNS - 1) away from the
        # mean of the others.
        share = RUNS / (RUNS - 1)
        for distance, count in (
            (0.0, RUNS),
            (3.5 * share, 2),
            (2.6 * share, 2),
            (3.6 * share, 0),
        ):
            assert (
                compare(np.float64(distance - 1e-12), APART, None, 0.0, 1.0, 8.0).as_far
                == count
            )

    @pytest.mark.parametrize(
        "value", [None, np.float64(np.nan), np.float64(np.inf), np.ones(2)]
    )
    def test_what_cannot_be_compared_never_passes(self, value):
        assert compare(value, APART, None, 1.0, 1.0, 8.0).z == UNEQUAL

    def test_equality_where_nothing_may_differ(self):
        assert compare(np.float64(3.0), np.full(RUNS, 3.0), None, 0.0, 1.0, 8.0).z == 0
        assert (
            compare(np.float64(4.0), np.full(RUNS, 3.0), None, 0.0, 1.0, 8.0).z
            == UNEQUAL
        )

    @given(st.floats(-1e3, 1e3), st.integers(-30, 30))
    def test_has_no_unit(self, value, power):
        # Scaling by a power of two is exact.
        scale = 2.0**power
        plain = compare(np.float64(value), 5 + APART, np.float64(4), 0.1, 1.0, 8.0)
        scaled = compare(
            np.float64(value * scale),
            (5 + APART) * scale,
            np.float64(4 * scale),
            0.1 * scale,
            1.0,
            8.0,
        )
        assert [getattr(plain, name) for name in ("z", "as_far", "detectable")] == [
            getattr(scaled, name) for name in ("z", "as_far", "detectable")
        ]


class TestJudge:
    def test_same_computation(self):
        verdict = judge(outcome(weight=1 + 3 * SPREAD), ends())
        assert (verdict.verdict, verdict.worst) == (SAME, "params/w")
        assert verdict.max_z == pytest.approx(3)

    def test_chaotic_path(self):
        verdict = judge(outcome(), ends(rounding=0.01))
        assert verdict.verdict == CHAOTIC
        assert verdict.grown == pytest.approx(100 * SPREAD)
        assert (
            "JAX's own runs end 245 times rounding apart, so a difference below 19"
            in sentence("torch", verdict)
        )

    @pytest.mark.parametrize("rounding", [1.0, 0.01])
    def test_divergence(self, rounding):
        verdict = judge(outcome(weight=1 + 8.1 * SPREAD), ends(rounding))
        assert verdict.verdict == DIVERGENCE
        assert (
            sentence("torch", verdict)
            == "torch: DIVERGENCE, furthest off is params/w, z 8.10 of 8 allowed"
        )

    def test_threshold(self):
        assert (
            judge(outcome(weight=1 + 3 * SPREAD), ends(), threshold=2.9).verdict
            == DIVERGENCE
        )

    def test_losses_count(self):
        assert judge(outcome(loss=6.0), ends()).worst == "train_loss"
        assert judge(outcome(loss=6.0), ends()).verdict == DIVERGENCE

    def test_what_is_missing_diverges(self):
        assert judge({"train_loss": np.float64(1)}, ends()).worst == "params/w"
