"""What tells fewer digits from a difference that fewer digits would hide."""

import numpy as np
import pytest

from parity.judging.coarser import is_hopeless, only_makes_noise
from parity.judging.measure import Measurement, measure

THRESHOLD = 8.0
SIZE = 500
FINE = np.dtype(np.float32)
COARSE = np.dtype(np.float16)
UNITS = {FINE: 2.0**-24, COARSE: 2.0**-11}


def tensors(seed, count=4):
    rng = np.random.default_rng(seed)
    return [rng.uniform(1, 2, SIZE) for _ in range(count)]


def measured(recorded, replayed, digits):
    """Measurements of tensors against replays that are made with few or many digits."""
    return [
        measure(
            0,
            "grads",
            str(place),
            left.astype(np.float32),
            right.astype(digits).astype(np.float64),
            UNITS[digits] * np.sqrt(SIZE),
            digits,
        )
        for place, (left, right) in enumerate(zip(recorded, replayed))
    ]


def verdict(recorded, true, rounded=None):
    before = measured(recorded, true, FINE)
    after = measured(recorded, true if rounded is None else rounded, COARSE)
    assert any(m.z > THRESHOLD for m in before)
    assert all(m.z <= THRESHOLD for m in after)
    return only_makes_noise(before, after, THRESHOLD)


class TestOnlyMakesNoise:
    def test_what_was_rounded_is_explained(self):
        true = tensors(0)
        assert not verdict([x.astype(COARSE) for x in true], true)

    def test_what_was_rounded_in_another_order_is_explained(self):
        true = tensors(0)
        moved = [
            x + 2.0**-12 * np.random.default_rng(1).normal(size=SIZE) for x in true
        ]
        assert not verdict([x.astype(COARSE) for x in true], true, moved)

    @pytest.mark.parametrize("size", [1e-5, 3e-5, 1e-4, 3e-3])
    def test_a_difference_that_fewer_digits_hide_is_not(self, size):
        true = tensors(0)
        assert verdict([x * (1 + size) for x in true], true)

    @pytest.mark.parametrize("size", [3e-4, 6e-4])
    def test_a_layer_that_agrees_to_the_last_digit_refutes_it(self, size):
        """The difference is of rounding's size, but begins behind the first layer."""
        first, *rest = tensors(0)
        assert verdict([first, *(x * (1 + size) for x in rest)], [first, *rest])

    def test_a_switch_of_the_same_digits_is_not_judged(self):
        fine = [Measurement(0, "grads", "w", 500.0, 1e-6)]
        near = [Measurement(0, "grads", "w", 1.0, 1e-6)]
        assert not only_makes_noise(fine, near, THRESHOLD)

    def test_equalities_have_no_unit(self):
        broken = [Measurement(0, "batch", "", np.inf, 0.0)]
        mended = [Measurement(0, "batch", "", 0.0, 0.0)]
        assert not only_makes_noise(broken, mended, THRESHOLD)


def far(z, change=1.0, growth=1.0):
    """A tensor without and with a switch that changes its distance and its unit."""
    before = Measurement(0, "grads", f"{z} {change}", z, 1e-6)
    after = before._replace(z=z * change / growth, detectable=1e-6 * growth)
    return before, after


def hopeless(*pairs):
    before, after = zip(*pairs)
    return is_hopeless(before, before, after, THRESHOLD)


class TestIsHopeless:
    @pytest.mark.parametrize("growth", [1.0, 1e-3, 1e4])
    def test_what_does_not_act_or_makes_all_worse(self, growth):
        assert hopeless(far(1e3, 1.0, growth), far(9.0, 0.9995, growth))
        assert hopeless(far(1e3, 5.0, growth))

    @pytest.mark.parametrize("change", [1e-4, 0.5, 0.99, 1.01, 1.5])
    def test_not_what_changes_the_distance_by_little_or_to_the_better(self, change):
        assert not hopeless(far(1e3, change))

    def test_not_what_mends_most(self):
        pairs = [far(1e3, 1e-4), far(2e3, 1e-4), far(1e3, 5.0)]
        assert not hopeless(*pairs)

    def test_not_what_a_larger_unit_might_let_pass(self):
        assert not hopeless(far(9.0, 3.0))

    def test_not_where_nothing_fails(self):
        assert not hopeless(far(1.0, 5.0))
