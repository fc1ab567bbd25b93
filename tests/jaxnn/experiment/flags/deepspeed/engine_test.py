"""Tests of jaxnn/experiment/flags/deepspeed/engine.py against DeepSpeedConfig."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.experiment.errors import UserError
from tests.jaxnn.experiment.flags.deepspeed.entries import SILENT, fast


class TestBatch:
    SIZES = st.one_of(st.none(), st.integers(1, 12))

    @given(st.one_of(st.none(), st.integers(1, 96)), SIZES, SIZES, st.integers(1, 4))
    @fast
    def test_is_deepspeeds_arithmetic(
        self, read, theirs, train, micro, accumulation, ranks
    ):
        sizes = {
            "train_batch_size": train,
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": accumulation,
        }
        entries = {key: value for key, value in sizes.items() if value is not None}
        try:
            expected = theirs(entries, ranks)
        except AssertionError:
            with pytest.raises(
                UserError, match=r"^--ds_config: .*train_(micro_)?batch_size"
            ):
                read(entries, f"--num_devices={ranks}")
            return
        experiment, _ = read(entries, f"--num_devices={ranks}")
        assert experiment.batch_size == expected.train_batch_size
        assert experiment.accumulation_steps == expected.gradient_accumulation_steps

    def test_ranks_of_the_launcher(self, read, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        entries = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 32}
        assert read(entries)[0].accumulation_steps == 1

    def test_flags_complete_what_is_missing(self, read):
        experiment, _ = read(
            {"train_micro_batch_size_per_gpu": 8}, "--accumulation_steps=4"
        )
        assert (experiment.batch_size, experiment.accumulation_steps) == (32, 4)


class TestPrecision:
    @pytest.mark.parametrize(
        ("entries", "precision"),
        [
            ({}, "fp32"),
            ({"fp16": {"enabled": False}}, "fp32"),
            ({"fp16": {"enabled": True}}, "fp16"),
            ({"bf16": {"enabled": True}, "fp16": {"enabled": False}}, "bf16"),
            ({"bfloat16": {"enabled": True}}, "bf16"),
            ({"fp16": {}}, "fp32"),
            ({"bf16": None}, "fp32"),
            ({"fp16": {"enabled": "on"}}, "fp16"),
            ({"fp16": {"enabled": 1}}, "fp16"),
        ],
    )
    def test_format(self, read, entries, precision):
        assert read({**SILENT, **entries})[0].precision == precision

    @pytest.mark.parametrize(("enabled", "is_noted"), [(True, False), (False, True)])
    def test_inputs_that_are_cast_anyway(self, read, enabled, is_noted):
        plain = {**SILENT, "fp16": {"enabled": enabled}}
        cast = {**SILENT, "fp16": {"enabled": enabled, "auto_cast": True}}
        experiment, notes = read(cast)
        assert experiment == read(plain)[0]
        assert any("fp16.auto_cast" in note for note in notes) == is_noted

    def test_scaler_is_deepspeeds(self, read, theirs):
        for given_values in (
            {},
            dict(
                loss_scale=128,
                initial_scale_power=10,
                loss_scale_window=5,
                hysteresis=4,
                consecutive_hysteresis=True,
                min_loss_scale=2,
            ),
        ):
            entries = {**SILENT, "fp16": {"enabled": True, **given_values}}
            experiment = read(entries)[0]
            expected = theirs(entries).float16_config
            assert experiment.static_loss_scale == expected.loss_scale
            for name in (
                "initial_scale_power",
                "loss_scale_window",
                "hysteresis",
                "consecutive_hysteresis",
                "min_loss_scale",
            ):
                assert getattr(experiment, name) == getattr(expected, name), name
            assert type(experiment.min_loss_scale) is float

    @pytest.mark.parametrize(
        ("stage", "expected"), [({"stage": 3}, 3), ({}, 0), (True, 1), (False, 0)]
    )
    def test_zero_stage(self, read, theirs, stage, expected):
        entries = {**SILENT, "zero_optimization": stage}
        assert (
            read(entries)[0].zero_stage
            == expected
            == theirs(entries).zero_optimization_stage
        )
