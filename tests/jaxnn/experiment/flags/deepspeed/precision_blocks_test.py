"""Tests of jaxnn/experiment/flags/deepspeed/precision_blocks.py, and of the ZeRO stage."""

import pytest

from tests.jaxnn.experiment.flags.deepspeed.entries import SILENT


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
            ({"fp16": None}, "fp32"),
        ],
    )
    def test_format(self, read, entries, precision):
        assert read({**SILENT, **entries})[0].precision == precision

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
            experiment, expected = read(entries)[0], theirs(entries).float16_config
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
