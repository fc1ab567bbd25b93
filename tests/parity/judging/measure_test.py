"""z scores, equalities and the order of first divergence."""

import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from parity.judging.measure import (
    BROKEN,
    Measurement,
    equal,
    first_failed,
    measure,
    verdict,
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
        assert measure(0, "grads", "w", ONE * bad, ONE, 1.0, FLOAT32).z == BROKEN
        assert measure(0, "grads", "w", ONE, ONE * bad, 1.0, FLOAT32).z == BROKEN
        assert measure(0, "grads", "w", ONE, ONE, bad, FLOAT32).z == BROKEN


class TestEqual:
    def test_to_the_bit(self):
        assert equal(0, "params", "w", ONE, ONE.copy()).z == 0
        assert equal(0, "params", "w", ONE, np.nextafter(ONE, 2)).z == BROKEN
        assert equal(0, "params", "w", np.float32(0.0), np.float32(-0.0)).z == BROKEN
        assert equal(0, "params", "w", ONE * np.nan, ONE * np.nan).z == BROKEN

    def test_shape_and_format_count(self):
        assert equal(0, "params", "w", ONE, ONE[None]).z == BROKEN
        assert equal(0, "params", "w", ONE, ONE.astype(np.float64)).z == BROKEN


class TestVerdict:
    def test_parity_at_the_threshold(self):
        assert (
            verdict([Measurement(0, "grads", "w", 8.0, 0.1)], 1)["verdict"] == "parity"
        )

    def test_first_divergence_is_by_step_then_phase(self):
        faults = [
            Measurement(2, "batch", "ids", BROKEN, 0),
            Measurement(1, "updated", "b", 99, 0),
            Measurement(1, "grads", "a", 9, 0),
            Measurement(1, "grads", "b", 10, 0),
        ]
        result = verdict(faults, 3)
        assert result["verdict"] == "divergence"
        assert result["first_divergence"] == {
            "step": 1,
            "quantity": "grads",
            "tensor": "b",
            "z": 10,
        }
        assert result["max_z"] == BROKEN

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

    @pytest.mark.parametrize(
        ("measurements", "steps"),
        [
            ([], 3),
            ([Measurement(0, "batch", "ids", 0, 0)], 3),
            ([Measurement(0, "loss", "", 1.0, 0.1)], 0),
        ],
    )
    def test_refuses_to_judge_by_nothing(self, measurements, steps):
        with pytest.raises(UserError, match="cannot judge: no tensor of"):
            verdict(measurements, steps)

    def test_refuses_where_every_step_was_skipped(self):
        skipped = [
            Measurement(step, quantity, "", 0.5, 0.1)
            for step in range(3)
            for quantity in ("loss", "skipped")
        ]
        with pytest.raises(
            UserError, match="cannot judge: each of 3 steps was skipped by an overflow"
        ):
            verdict(skipped, 3)
        assert (
            verdict([*skipped, Measurement(1, "loss", "", 9.0, 0.1)], 3)["verdict"]
            == "divergence"
        )
