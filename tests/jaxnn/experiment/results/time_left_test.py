"""Tests of jaxnn/experiment/results/time_left.py."""

import pytest

from jaxnn.experiment.results import time_left


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (9000, "2.5 h"),
    ],
)
def test_text(seconds, expected):
    assert time_left.text(seconds) == expected


def test_pieces_take_as_long_as_those_before_by_their_sizes():
    now = [100.0]
    left = time_left.TimeLeft([1, 3, 2], clock=lambda: now[0])
    assert left.next() == "1 of 3"
    now[0] += 10
    assert left.next() == "2 of 3, 50 s left"
    now[0] += 30
    assert left.next() == "3 of 3, 20 s left"
