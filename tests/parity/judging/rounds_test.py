"""How often a step is measured: until it passes, or surely fails."""

import math

import pytest

from parity.judging.measure import Measurement
from parity.judging.rounds import THOROUGH, Rounds

THRESHOLD = 8.0


def draws_of(rounds, **z):
    """Numbers of draws made, where the z of each quantity stays what it is."""
    made = []

    def units(draws):
        made.append(draws)
        return {}

    def compare(units, closely):
        return (Measurement(0, name, "w", z, 1e-3) for name, z in z.items())

    rounds.run(units, compare)
    return made


class TestRounds:
    def test_what_passes_well_is_measured_once(self):
        assert draws_of(Rounds(THOROUGH, THRESHOLD), loss=1.0) == [2]

    def test_what_passes_narrowly_is_measured_twice(self):
        assert draws_of(Rounds(THOROUGH, THRESHOLD), loss=7.0) == [2, 5]

    def test_what_fails_gets_a_close_look(self):
        assert draws_of(Rounds(THOROUGH, THRESHOLD), loss=1e6) == [2, 5, 64]

    def test_behind_a_divergence_only_what_fails_by_little(self):
        rounds = Rounds(THOROUGH, THRESHOLD, close_below=1000.0)
        assert draws_of(rounds, loss=900.0) == [2, 5, 64]
        assert draws_of(rounds, loss=1100.0) == [2, 5]


class TestWithoutKinks:
    @pytest.mark.parametrize(
        ("z", "is_close"),
        [
            ({"loss": 17.0}, False),
            ({"loss": 15.0}, True),
            # More draws may clear the loss, which would be named.
            ({"loss": 9.0, "grads": 1e3}, True),
            # Whatever they say of the gradients, the loss is named.
            ({"loss": 1e3, "grads": 9.0}, False),
            # Which layer is first they may tell.
            ({"activations": 9.0, "loss": 1e3}, True),
        ],
    )
    def test_the_first_divergence_is_looked_at_where_it_is_in_doubt(self, z, is_close):
        rounds = Rounds(THOROUGH, THRESHOLD).without_kinks()
        assert draws_of(rounds, **z) == [2, 5] + [64] * is_close

    @pytest.mark.parametrize(("worst", "is_close"), [(15.0, True), (17.0, False)])
    def test_what_follows_only_where_nothing_fails_clearly(self, worst, is_close):
        rounds = Rounds(THOROUGH, THRESHOLD, close_below=1000.0).without_kinks()
        found = draws_of(rounds, loss=9.0, grads=worst)
        assert found == [2, 5] + [64] * is_close

    def test_what_is_not_finite_is_no_noise(self):
        rounds = Rounds(THOROUGH, THRESHOLD).without_kinks()
        assert draws_of(rounds, loss=math.inf) == [2, 5]
