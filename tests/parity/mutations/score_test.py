"""Tests of parity/mutations: a few faults planted for real, and the score's counts."""

import json

import pytest

from parity.judging.measure import Measurement
from parity.mutations import table
from parity.mutations.bench import CLEAN
from parity.mutations.score import FaultOutcome

FAULTS = {
    "mlp": (
        "weights_reloaded",
        "same_order_every_epoch",
        "loss_summed",
        "dropout_mask_reused",
        "eps_inside_root",
        "clip_by_tensor",
        "loss_not_scaled",
    ),
    "growth": ("growth_step_halved", "scale_grows_early"),
    "accumulation": ("accumulated_in_half",),
}


@pytest.mark.parametrize("base", FAULTS)
def test_all_is_caught_located_and_explained(run, tmp_path, base):
    done = run(
        "parity.mutations",
        f"--bases={base}",
        f"--precisions={'bf16' if base == 'accumulation' else 'fp16'}",
        f"--faults={','.join(FAULTS[base])}",
        f"--workdir={tmp_path / 'runs'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads((tmp_path / "runs" / "mutations.json").read_text())[
        "outcomes"
    ]
    planted = {name for outcome in outcomes for name in outcome["fault"].split("+")} - {
        CLEAN
    }
    assert planted >= set(FAULTS[base])
    for outcome in outcomes:
        if outcome["fault"] != CLEAN:
            assert outcome["caught"], outcome
            assert outcome["located"], outcome
            assert outcome["explained"], outcome


def outcome(
    fault="a", expected=True, found=True, explanation=("a",), step=2, complaint=""
):
    at = Measurement(2, "grads", "w", 100.0, 0.1)
    return FaultOutcome(
        "mlp",
        "fp32",
        fault,
        at if expected else None,
        100.0 if expected else 2.0,
        at._replace(step=step) if found else None,
        explanation,
        complaint,
    )


class TestScore:
    @pytest.mark.parametrize(
        ("outcomes", "enough"),
        [
            ([outcome()], True),
            # Missed.
            ([outcome(found=False, explanation=())], False),
            # Below detection: listed, not counted.
            ([outcome(expected=False, found=False, explanation=())], True),
            # In the wrong place.
            ([outcome(step=3)], False),
            ([outcome(explanation=("b",))], False),
            ([outcome(complaint="exit code 1", found=False)], False),
            # 95 % located.
            ([outcome()] * 19 + [outcome(step=3)], True),
            # 90 % explained.
            ([outcome()] * 9 + [outcome(explanation=())], True),
            ([outcome()] * 8 + [outcome(explanation=())] * 2, False),
            # A false alarm.
            ([outcome(), outcome(CLEAN, expected=False, explanation=())], False),
            (
                [
                    outcome(),
                    outcome(CLEAN, expected=False, found=False, explanation=()),
                ],
                True,
            ),
        ],
    )
    def test_is_enough(self, outcomes, enough):
        assert table.is_enough(outcomes) == enough

    def test_says_where_and_why_not(self):
        assert (
            table.line(outcome())
            == "mlp fp32 a: caught at step 2 grads w (z 100); explained"
        )
        assert "INSTEAD OF step 2 grads w" in table.line(outcome(step=3))
        assert table.line(outcome(explanation=("b",))).endswith(
            "NOT explained but by b"
        )
        assert (
            table.line(outcome(found=False))
            == "mlp fp32 a: MISSED, moves a tensor by z 1e+02"
        )
        assert "below detection" in table.line(outcome(expected=False, found=False))
        assert "FALSE ALARM at step 2" in table.line(outcome(CLEAN, expected=False))

    def test_the_summary_counts_by_fault_and_by_base(self):
        summary = table.summary(
            [
                outcome(),
                outcome(step=3),
                outcome("b", expected=False, found=False),
                outcome(CLEAN, expected=False, found=False),
            ],
            "abc",
        )
        counts = {
            "planted": 2,
            "detectable": 2,
            "caught": 2,
            "located": 1,
            "explained": 2,
        }
        assert summary["commit"] == "abc"
        assert summary["faults"] == [
            {"name": "a", **counts, "below": {}},
            {
                "name": "b",
                **dict.fromkeys(counts, 0),
                "planted": 1,
                "below": {"mlp fp32 b": 2.0},
            },
        ]
        assert summary["bases"] == [
            {"name": "mlp fp32", **counts, "planted": 3, "below": {"mlp fp32 b": 2.0}}
        ]

    def test_the_totals(self):
        said = table.sentence(
            [
                outcome(),
                outcome("b", found=False),
                outcome(CLEAN, expected=False, found=False),
            ]
        )
        assert said.startswith("caught 1 of 2, located 1 of 2, explained 1 of 2")
        assert said.endswith("0 false alarms in 1 clean runs")
