"""What a glance rules out: what it moves by far, and what it leaves failing."""

import math

import pytest

from parity.judging.estimate import SURELY, Estimate
from parity.judging.measure import UNEQUAL, Measurement

THRESHOLD = 8.0
ULP = 1e-6
UNIT = 1e-3
DECISIVE = ("activations", "loss")


def measured(z, detectable=UNIT, quantity="activations", tensor="a"):
    return Measurement(0, quantity, tensor, z, detectable)


def estimate(before, after, quantity="activations", ulp=ULP, times_larger=1.0):
    """A tensor's z without and under a guess; both in units of `without`."""
    in_ulps = UNIT / ULP
    return Estimate(
        [measured(before, quantity=quantity)],
        [measured(before * in_ulps, ULP, quantity)],
        [measured(after * UNIT / ulp, ulp, quantity)],
        {(quantity, "a"): times_larger},
    )


def rules_out(*args, **kwargs):
    return estimate(*args, **kwargs).rules_out(DECISIVE, THRESHOLD)


class TestRulesOut:
    def test_what_agreed_and_is_moved_by_far(self):
        assert rules_out(1.0, 1.01 * SURELY * THRESHOLD)
        assert not rules_out(1.0, 0.99 * SURELY * THRESHOLD)

    def test_what_fails_still_by_far(self):
        assert rules_out(500.0, 400.0)

    def test_what_fails_and_is_not_moved(self):
        assert rules_out(9.0, 9.0)
        assert rules_out(9.0, 9.005)
        assert not rules_out(9.0, 8.5)

    def test_not_what_may_be_as_large_as_it_was_recorded(self):
        """A sum over 64 samples is rounded by 64 times as much as their mean."""
        assert not rules_out(1e6, 400.0, times_larger=64.0)
        assert rules_out(1e6, 1.1 * 64 * SURELY * THRESHOLD, times_larger=64.0)
        assert rules_out(1.0, 400.0, times_larger=1 / 64)

    def test_not_what_passes_and_is_not_moved(self):
        assert not rules_out(1.0, 1.0)

    def test_not_what_is_mended(self):
        assert not rules_out(500.0, 1.0)

    def test_not_what_a_kink_may_have_moved(self):
        assert not rules_out(1.0, 500.0, quantity="grads")

    def test_not_what_is_computed_in_other_digits(self):
        assert not rules_out(1.0, 500.0, ulp=1e3 * ULP)


class TestMeasurements:
    def test_are_in_units_of_the_step_without(self):
        (found,) = estimate(1.0, 20.0).measurements
        assert found == measured(pytest.approx(20.0))

    def test_what_was_not_glanced_at_is_as_without(self):
        without = [measured(1.0), measured(30.0, quantity="grads")]
        glanced = [measured(5.0)]
        found = Estimate(without, [measured(1.0)], glanced, {}).measurements
        assert found == [measured(5.0), without[1]]

    def test_what_an_overflow_lost_without_the_guess_is_left_out(self):
        glanced = [measured(5.0), measured(UNEQUAL, 0.0, tensor="lost")]
        without = [measured(1.0)]
        assert Estimate(without, without, glanced, {}).measurements == [measured(5.0)]

    def test_a_broken_equality_is_kept(self):
        decision = measured(UNEQUAL, 0.0, "skipped", "")
        without = [decision._replace(z=0.0)]
        (found,) = Estimate(without, without, [decision], {}).measurements
        assert math.isinf(found.z)


class TestIsInert:
    def test_what_is_equal_to_the_bit(self):
        assert estimate(0.0, 0.0).is_inert

    def test_what_moves_from_there_is_not(self):
        assert not estimate(0.0, 1.0).is_inert

    def test_what_is_as_far_as_it_was(self):
        assert estimate(300.0, 300.0).is_inert
