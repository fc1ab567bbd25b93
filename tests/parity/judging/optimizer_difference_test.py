"""Which measured differences bear on what failed."""

import math
from typing import Any

import pytest

from parity.judging import optimizer_difference
from parity.judging.measure import Measurement
from parity.measured.difference import Difference

BETA = Difference("second moment decay", "decays by 0.9901", ("w",), 0.9901, 0.99)
FACTOR = Difference("gradient factor", "by 1.0000014", ("w",), 1.0000014, math.nan)
RATE = Difference("rate", "rate is 0.1", ("w",), 0.1, 0.2)


@pytest.fixture
def found(monkeypatch):
    """found(differences, quantity that failed) -> the differences that are told."""

    def tell(differences, quantity):
        monkeypatch.setattr(
            optimizer_difference.compare, "differences", lambda *fits: differences
        )
        monkeypatch.setattr(optimizer_difference.fit, "measure", lambda steps: {})
        failed = [Measurement(0, quantity, "w", 99.0, 1e-6)]
        steps: list[Any] = [None, None]
        return optimizer_difference.find(steps, steps, failed).differences

    return tell


@pytest.mark.parametrize("quantity", ["moments", "updated"])
class TestFind:
    def test_a_factor_that_another_beta_makes_is_not_told(self, found, quantity):
        assert found([BETA, FACTOR], quantity) == [BETA]

    def test_a_factor_that_stands_alone_is(self, found, quantity):
        assert found([FACTOR], quantity) == [FACTOR]

    def test_nor_is_a_large_one_left_out(self, found, quantity):
        large = FACTOR._replace(recorded=0.5)
        assert found([BETA, large], quantity) == [BETA, large]


def test_rates_do_not_touch_the_moments(found):
    assert found([BETA, RATE], "moments") == [BETA]
    assert found([BETA, RATE], "updated") == [BETA, RATE]
