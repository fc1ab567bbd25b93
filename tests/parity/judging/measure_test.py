"""z scores, equalities and the order of first divergence."""

import numpy as np
import pytest

from parity.judging.measure import (
    UNEQUAL,
    Measurement,
    equal,
    first_failed,
    measure,
)

FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)
ONE = np.ones(4, np.float32)


class TestMeasure:
    def test_distance_in_noise_units(self):
        measurement = measure(0, "grads", "w", ONE, ONE + 0.5, 0.25, FLOAT32)
        assert measurement.z == 4.0
        assert measurement.detectable == pytest.approx(8 * 0.25 / 2)

    def test_unit_is_at_least_one_ulp_of_the_storage_format(self):
        assert measure(0, "grads", "w", ONE, ONE + 2.0**-23, 0.0, FLOAT32).z == 1.0
        assert measure(0, "grads", "w", ONE, ONE + 2.0**-10, 0.0, FLOAT16).z == 1.0

    def test_storage_scale_counts(self):
        """An unscaled gradient of 2^-20 was stored as 2^-4 under a scale of 2^16: its
        ulp is not a subnormal's."""
        small = np.full(4, 2.0**-20)
        assert (
            measure(
                0,
                "grads",
                "w",
                small,
                small * (1 + 2.0**-10),
                0.0,
                FLOAT16,
                scale=2.0**16,
            ).z
            == 1.0
        )

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite_never_passes(self, bad):
        assert measure(0, "grads", "w", ONE * bad, ONE, 1.0, FLOAT32).z == UNEQUAL
        assert measure(0, "grads", "w", ONE, ONE * bad, 1.0, FLOAT32).z == UNEQUAL
        assert measure(0, "grads", "w", ONE, ONE, bad, FLOAT32).z == UNEQUAL


class TestEqual:
    def test_to_the_bit(self):
        assert equal(0, "params", "w", ONE, ONE.copy()).z == 0
        assert equal(0, "params", "w", ONE, np.nextafter(ONE, 2)).z == UNEQUAL
        assert equal(0, "params", "w", np.float32(0.0), np.float32(-0.0)).z == UNEQUAL
        assert equal(0, "params", "w", ONE * np.nan, ONE * np.nan).z == UNEQUAL

    def test_shape_and_format_count(self):
        assert equal(0, "params", "w", ONE, ONE[None]).z == UNEQUAL
        assert equal(0, "params", "w", ONE, ONE.astype(np.float64)).z == UNEQUAL


class TestFirstFailed:
    def test_activations_come_in_forward_order_and_gradients_in_backward_order(self):
        order = ["hidden_0", "output", "output/kernel", "hidden_0/kernel"]
        activations = [
            Measurement(1, "activations", "output", 99, 0),
            Measurement(1, "activations", "hidden_0", 9, 0),
        ]
        gradients = [
            Measurement(1, "grads", "hidden_0/kernel", 99, 0),
            Measurement(1, "grads", "output/kernel", 9, 0),
        ]
        assert first_failed(activations + gradients, 8.0, order).tensor == "hidden_0"
        assert first_failed(gradients, 8.0, order).tensor == "output/kernel"
        assert first_failed(gradients, 100.0, order) is None
