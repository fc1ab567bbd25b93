"""A claim is a figure against a bound, and can fail."""

import math

import pytest

from parity.labs.claims import Claim


@pytest.mark.parametrize(
    ("measured", "relation", "is_met"),
    [
        (0.5, "<", True),
        (1.0, "<", False),
        (1.0, "<=", True),
        (2.0, ">", True),
        (math.inf, ">", True),
        (math.nan, "<", False),
        (math.nan, ">=", False),
    ],
)
def test_is_met(measured, relation, is_met):
    assert Claim("", measured, relation, 1.0).is_met is is_met


def test_figures_show_what_was_measured_and_what_should_be():
    assert Claim("", 1.234567, ">=", 2.0).figures == "1.235, should be >= 2"
