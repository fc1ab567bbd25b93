"""Tests of jaxnn/experiment/flags/deepspeed/scheduler.py against DeepSpeed's rates."""

import inspect
import json
import warnings

import numpy as np
import pytest
import torch

from jaxnn.experiment import schedules
from tests.jaxnn.experiment.flags.deepspeed.entries import schedule


class TestScheduler:
    @pytest.mark.parametrize(
        "entries",
        [
            schedule("WarmupLR", warmup_num_steps=10),
            schedule("WarmupLR", warmup_max_lr=0.2, warmup_num_steps=7),
            schedule(
                "WarmupLR", warmup_min_lr=0.1, warmup_num_steps=10, warmup_type="linear"
            ),
            schedule("WarmupDecayLR", total_num_steps=40, warmup_num_steps=10),
            schedule(
                "WarmupDecayLR",
                total_num_steps=50,
                warmup_num_steps=10,
                warmup_max_lr=0.2,
                warmup_type="linear",
            ),
            schedule("WarmupCosineLR", total_num_steps=40, warmup_num_steps=10),
            schedule(
                "WarmupCosineLR",
                total_num_steps=50,
                warmup_num_steps=10,
                warmup_min_ratio=0.1,
                cos_min_ratio=0.1,
            ),
            schedule(
                "WarmupCosineLR",
                total_num_steps=40,
                warmup_num_steps=3,
                warmup_min_ratio=0.2,
                cos_min_ratio=0.05,
            ),
        ],
        ids=lambda entries: json.dumps(entries["scheduler"]),
    )
    def test_every_rate_is_deepspeeds(self, read, entries):
        ours = schedules.learning_rates(read(entries)[0], 40)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        rates = []
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            from deepspeed.runtime import lr_schedules

            patch.setattr(lr_schedules.logger, "warning", lambda message: None)
            scheduler = getattr(lr_schedules, entries["scheduler"]["type"])(
                optimizer, **entries["scheduler"]["params"]
            )
            for _ in range(40):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
        # A float32 ulp for the rounding, four float64 ulps of the peak for rates that
        # are small differences.
        np.testing.assert_allclose(
            ours,
            np.float32(rates),
            rtol=np.finfo(np.float32).eps,
            atol=0.5 * 4 * 2.0**-52,
        )

    def test_defaults_are_deepspeeds(self, read):
        from deepspeed.runtime import lr_schedules

        for name, changes in (
            ("WarmupLR", {}),
            ("WarmupDecayLR", {"total_num_steps": 5000}),
        ):
            theirs = inspect.signature(getattr(lr_schedules, name)).parameters
            experiment, notes = read(schedule(name, **changes))
            assert experiment.warmup_steps == theirs["warmup_num_steps"].default == 1000
            assert experiment.warmup_type == theirs["warmup_type"].default == "log"
            assert experiment.min_learning_rate == theirs["warmup_min_lr"].default
            assert experiment.learning_rate == (theirs["warmup_max_lr"].default or 0.5)
            assert any(
                "scheduler.params.warmup_num_steps: not in theirs.json" in note
                for note in notes
            )

    def test_a_run_may_end_within_the_warm_up(self, read):
        rates = schedules.learning_rates(
            read(schedule("WarmupLR", warmup_type="linear"))[0], 5
        )
        np.testing.assert_array_equal(rates, np.float32([0, 0, 0.0005, 0.001, 0.0015]))

    def test_notes_a_rate_that_is_never_used(self, read):
        _, notes = read(
            schedule(
                "WarmupLR", warmup_max_lr=0.25, warmup_num_steps=10, warmup_type="log"
            )
        )
        assert (
            "note: --ds_config: optimizer.params.lr: 0.5 is never used: "
            "scheduler.params.warmup_max_lr is the peak, 0.25"
        ) in notes

    @pytest.mark.parametrize("kind", ["WarmupDecayLR", "WarmupCosineLR"])
    def test_notes_an_end_before_the_peak(self, read, kind):
        entries = schedule(kind, total_num_steps=9, warmup_num_steps=10)
        experiment, notes = read(entries)
        assert (
            "note: --ds_config: scheduler.params.total_num_steps: 9 steps end before "
            "the peak, scheduler.params.warmup_num_steps is 10"
        ) in notes
        assert len(schedules.learning_rates(experiment, 9)) == 9

    def test_notes_no_end_that_the_run_decides(self, read):
        entries = schedule("WarmupDecayLR", total_num_steps="auto")
        assert not any("before the peak" in note for note in read(entries)[1])
