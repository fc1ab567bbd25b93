"""Parity, divergence, and what is too little to judge by."""

import pytest

from jaxnn.experiment.errors import UserError
from parity.judging.measure import UNEQUAL, Measurement
from parity.judging.verdict import judge_measurements


class TestVerdict:
    def test_parity_at_the_threshold(self):
        assert (
            judge_measurements([Measurement(0, "grads", "w", 8.0, 0.1)], 1).as_json()[
                "verdict"
            ]
            == "parity"
        )

    def test_first_divergence_is_by_step_then_phase(self):
        faults = [
            Measurement(2, "batch", "ids", UNEQUAL, 0),
            Measurement(1, "updated", "b", 99, 0),
            Measurement(1, "grads", "a", 9, 0),
            Measurement(1, "grads", "b", 10, 0),
        ]
        result = judge_measurements(faults, 3).as_json()
        assert result["verdict"] == "divergence"
        assert result["first_divergence"] == {
            "step": 1,
            "quantity": "grads",
            "tensor": "b",
            "z": 10,
            "gap": "",
        }
        assert result["max_z"] == "unequal"

    def test_what_would_pass_with_an_error_of_a_tenth(self):
        measured = [
            Measurement(0, "grads", "bias", 1.0, 0.3),
            Measurement(1, "grads", "bias", 1.0, 0.4),
            Measurement(0, "grads", "kernel", 1.0, 1e-6),
            Measurement(0, "grads", "other", 9.0, 0.5),
        ]
        assert judge_measurements(measured, 2).blunt == {("grads", "bias"): 0.4}

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
            judge_measurements(measurements, steps)

    def test_refuses_where_every_step_was_skipped(self):
        skipped = [
            Measurement(step, quantity, "", 0.5, 0.1)
            for step in range(3)
            for quantity in ("loss", "skipped")
        ]
        with pytest.raises(
            UserError, match="cannot judge: each of 3 steps was skipped by an overflow"
        ):
            judge_measurements(skipped, 3)
        assert judge_measurements(skipped, 3, must_learn=False).is_parity
        assert (
            judge_measurements(
                [*skipped, Measurement(1, "loss", "", 9.0, 0.1)], 3
            ).as_json()["verdict"]
            == "divergence"
        )
