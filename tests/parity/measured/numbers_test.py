"""Intervals of measured numbers."""

import math

from parity.measured.numbers import UNSEEN, Measured, agree, mean, ratio

ONE = Measured(1.0, 0.1)


def test_intervals_agree_where_they_overlap():
    assert agree(ONE, Measured(1.15, 0.06))
    assert not agree(ONE, Measured(1.2, 0.06))


def test_what_is_unseen_agrees_with_all():
    assert agree(ONE, UNSEEN)
    assert agree(UNSEEN, UNSEEN)
    assert UNSEEN.holds(5.0)


def test_text_never_gives_a_number_that_is_not_seen():
    assert Measured(0.9, 1e-9).text() == "0.9"
    assert Measured(1e-9, 2e-9).text() == "below 3e-09"
    assert UNSEEN.text() == "not measurable here"


def test_ratio_by_what_may_be_zero_is_unseen():
    assert ratio(ONE, Measured(0.0, 0.1)) is UNSEEN
    assert ratio(ONE, Measured(2.0, 0.0)) == Measured(0.5, 0.05)


def test_mean_of_parts_that_agree():
    whole = mean([Measured(1.0, 0.1), Measured(1.1, 0.1), UNSEEN])
    assert math.isclose(whole.value, 1.05)


def test_mean_of_parts_that_contradict_is_unseen():
    assert not mean([Measured(1.0, 0.01), Measured(2.0, 0.01)]).is_bounded
    assert not mean([UNSEEN]).is_bounded
