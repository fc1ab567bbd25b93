"""Tests of torch_ref/faults/schedule.py: by how much each fault moves a run."""

import numpy as np
import pytest
import torch

from jaxnn.experiment import schedules
from jaxnn.experiment.files.trace import select
from tests.torch_ref.faults.cases import BATCH, CASES, FIRST, STEPS
from tests.torch_ref.faults.formulas import (
    assert_updated,
    assert_within,
    experiment_of,
    pair,
    wide,
)


class TestSchedule:
    @pytest.mark.parametrize(
        ("fault", "shift"), [("learning_rate_early", 1), ("learning_rate_late", -1)]
    )
    def test_rate_of_another_update(self, steps, fault, shift):
        """The table ends with the run's 8 steps, of which 6 are taken."""
        table = [
            *(float(step["learning_rate"]) for step in steps("before--mlp")),
            *table_of("mlp")[STEPS:],
        ]
        actual = [float(step["learning_rate"]) for step in steps(f"{fault}-mlp")]
        assert actual == table[:FIRST] + table[FIRST + shift : STEPS + shift]

    def test_skipped_step_advances_the_schedule(self, steps):
        case = next(case for case in CASES if case.fault == "schedule_counts_skipped")
        plain, planted = steps(f"before-{case.clean}"), steps(str(case))
        table = table_of("mlp")
        assert [bool(step["skipped"]) for step in plain[: FIRST + 1]] == [
            True,
            False,
            False,
        ]
        assert [float(step["learning_rate"]) for step in plain[: FIRST + 1]] == [
            table[0],
            table[0],
            table[1],
        ]
        assert [float(step["learning_rate"]) for step in planted[FIRST:]] == table[
            FIRST:STEPS
        ]

    def test_skipped_step_counts(self, steps):
        case = next(case for case in CASES if case.fault == "skipped_steps_counted")
        assert [int(step["optimizer_step"]) for step in steps(str(case))] == [
            0,
            0,
            2,
            3,
            4,
            5,
        ]

    @pytest.mark.parametrize(
        ("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)]
    )
    def test_masters_as_drawn(self, steps, precision, dtype):
        """Rounded, they are the masters of the run without the fault; what computes is
        the same."""
        plain, planted = pair(
            steps, f"masters_not_rounded-mlp-precision={precision}", 0
        )
        for name, array in select(planted, "params").items():
            rounded = torch.from_numpy(array).to(dtype).float().numpy()
            np.testing.assert_array_equal(rounded, plain[f"params/{name}"])
            assert "kernel" not in name or (array != rounded).any()

    @pytest.mark.parametrize(
        "name", ["weights_reloaded-mlp", "weights_reloaded-mlp-precision=fp16"]
    )
    def test_weights_of_the_start(self, steps, name):
        planted = steps(name)
        for key, array in select(planted[FIRST], "params").items():
            np.testing.assert_array_equal(array, planted[0][f"params/{key}"])
        for key, array in select(planted[FIRST], "moments").items():
            np.testing.assert_array_equal(
                array, planted[FIRST - 1][f"updated_moments/{key}"]
            )

    def test_moments_at_zero(self, steps):
        plain, planted = pair(steps, "moments_reset-mlp")
        assert all(array.any() for array in select(plain, "moments").values())
        assert not any(array.any() for array in select(planted, "moments").values())
        assert_within(
            wide(planted, "updated_moments/first"),
            {name: (1 - 0.9) * array for name, array in wide(planted, "grads").items()},
            4,
            {name: abs(array) for name, array in wide(planted, "grads").items()},
        )

    def test_order_of_the_samples(self, steps):
        ids = [step["batch/ids"].tolist() for step in steps("not_shuffled-mlp")]
        assert ids[0] == ids[4] == list(range(BATCH))
        ids = [
            step["batch/ids"].tolist() for step in steps("same_order_every_epoch-mlp")
        ]
        assert ids[4:] == ids[:2]

    def test_scale_doubles_a_step_early(self, steps):
        """Without the halved gradient that DeepSpeed's own doubling brings (MISMATCHES
        D3)."""
        case = next(case for case in CASES if case.fault == "scale_grows_early")
        plain, planted = steps(f"before-{case.clean}"), steps(str(case))
        scales = [
            [float(step["loss_scale"]) for step in run] for run in (plain, planted)
        ]
        assert scales == [[256] * 4 + [512] * 2, [256] * 3 + [512] * 3]
        for number, share in ((3, 1 / 2), (4, 1)):
            assert_updated(
                plain[number],
                {
                    name: share * array
                    for name, array in wide(plain[number], "grads").items()
                },
            )
        for step in planted[FIRST:]:
            assert_updated(step, wide(step, "grads"))


def table_of(name: str) -> list[float]:
    return schedules.learning_rates(experiment_of(name), 8).astype(float).tolist()
