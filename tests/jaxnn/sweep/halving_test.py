"""Tests of jaxnn/sweep/halving.py."""

import pytest

from jaxnn.sweep.halving import Rung, rungs


@pytest.mark.parametrize(
    ("epochs", "settings", "factor", "expected"),
    [
        (30, 27, 0, [Rung(30, 0)]),
        (30, 27, 3, [Rung(2, 9), Rung(4, 3), Rung(10, 1), Rung(30, 0)]),
        (8, 4, 2, [Rung(2, 2), Rung(4, 1), Rung(8, 0)]),
        # Rungs that would end with the same epoch are one.
        (2, 16, 2, [Rung(1, 1), Rung(2, 0)]),
        (1, 16, 2, [Rung(1, 0)]),
        (9, 1, 3, [Rung(9, 0)]),
    ],
)
def test_rungs(epochs, settings, factor, expected):
    assert rungs(epochs, settings, factor) == expected
