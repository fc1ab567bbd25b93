"""Tests of jaxnn/experiment/flags/deepspeed/reading.py on whole files."""

import dataclasses
import json
import sys

import pytest

from jaxnn.experiment import schedules
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import auto
from tests.jaxnn.experiment.flags.deepspeed.entries import (
    LARGER,
    TUTORIAL,
    schedule,
)


class TestTutorialConfig:
    def test_is_adamw_fp16_clipped_without_zero(self, read):
        experiment, notes = read(TUTORIAL)
        assert experiment == Experiment(
            optimizer="adamw", precision="fp16", clip_norm=1.0, zero_stage=0
        )
        assert notes[:3] == [
            "note: --ds_config: optimizer.type: DeepSpeed's Adam is AdamW unless "
            "adam_w_mode is false: --optimizer=adamw",
            "note: --ds_config: gradient_clipping: not in theirs.json; DeepSpeed's "
            "default: --clip_norm=1.0; 0 in the file switches clipping off",
            "note: --ds_config: zero_optimization.stage: not in theirs.json; "
            "DeepSpeed's default: --zero_stage=0; no ZeRO",
        ]
        assert "pull request 8393" in notes[3]
        assert len(notes) == 4

    def test_flags_decide_what_it_does_not_say(self, read):
        experiment, notes = read(
            TUTORIAL, "--zero_stage=1", "--clip_norm=0", "--optimizer=adam"
        )
        assert experiment == Experiment(
            optimizer="adam", precision="fp16", clip_norm=0.0, zero_stage=1
        )
        assert notes == []

    def test_goes_with_the_flagfile_of_the_same_experiment(self, read):
        experiment, _ = read(
            TUTORIAL, "--flagfile=launch/experiments/linear_regression.flags"
        )
        assert (experiment.name, experiment.optimizer, experiment.clip_norm) == (
            "linear_regression",
            "adam",
            1.0,
        )


class TestLargerConfig:
    def test_every_field(self, read):
        experiment, notes = read(LARGER)
        assert experiment == Experiment(
            batch_size=64,
            accumulation_steps=2,
            clip_norm=1.0,
            optimizer="adamw",
            learning_rate=2e-3,
            weight_decay=1e-5,
            schedule="warmup_lr",
            warmup_steps=100,
            zero_stage=2,
            precision="bf16",
            ds_extra='{"zero_optimization": {"overlap_comm": true, '
            '"offload_optimizer": {"device": "cpu"}}}',
        )
        assert notes[1:] == [
            "note: --ds_config: scheduler.params.warmup_type: not in theirs.json; "
            "DeepSpeed's warm-up is a logarithm by default",
            "note: --ds_config: without a meaning in JAX, for DeepSpeed alone: "
            "zero_optimization.overlap_comm, zero_optimization.offload_optimizer",
            "note: --ds_config: ignored, without a meaning here: steps_per_print",
        ]

    def test_flags_of_the_run_are_the_resolved_ones(self, read, tmp_path):
        experiment, _ = read(LARGER)
        (tmp_path / "experiment.flags").write_text(options.to_flagfile(experiment))
        assert (
            command_line.parse(
                ["prog", f"--flagfile={tmp_path / 'experiment.flags'}"], "fp32"
            )[0]
            == experiment
        )


HUGGING_FACE = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "fp16": {"enabled": "auto", "hysteresis": 3},
    "optimizer": {
        "type": "AdamW",
        "params": {
            "lr": "auto",
            "betas": "auto",
            "eps": "auto",
            "weight_decay": "auto",
        },
    },
    "scheduler": {
        "type": "WarmupDecayLR",
        "params": {
            "warmup_min_lr": "auto",
            "warmup_max_lr": "auto",
            "warmup_num_steps": "auto",
            "total_num_steps": "auto",
        },
    },
    "zero_optimization": {"stage": 1, "reduce_bucket_size": "auto"},
}


class TestAuto:
    def test_is_left_to_the_flags(self, read):
        flags = dict(
            batch_size=64,
            accumulation_steps=2,
            clip_norm=3.0,
            learning_rate=0.25,
            adam_eps=1e-6,
            weight_decay=0.5,
            warmup_steps=9,
            min_learning_rate=0.125,
            precision="bf16",
        )
        experiment, notes = read(
            HUGGING_FACE, *(f"--{name}={value}" for name, value in flags.items())
        )
        assert experiment == Experiment(
            **flags, optimizer="adamw", schedule="warmup_decay_lr", hysteresis=3
        )
        taken = [note for note in notes if '"auto" is a flag if given' in note]
        assert len(taken) == 1
        assert "train_batch_size (--batch_size=64)" in taken[0]
        assert "gradient_clipping (--clip_norm=3.0)" in taken[0]
        assert "reduce_bucket_size (DeepSpeed's default)" in taken[0]
        assert "total_num_steps (the steps of the run)" in taken[0]

    TRAINERS = Experiment(
        batch_size=8,
        clip_norm=1.0,
        learning_rate=5e-5,
        optimizer="adamw",
        schedule="warmup_decay_lr",
        warmup_steps=1,
        hysteresis=3,
        precision="fp32",
    )

    def test_without_flags_is_what_the_trainer_fills_in(self, read):
        assert read(HUGGING_FACE)[0] == self.TRAINERS
        experiment, notes = read(HUGGING_FACE, "--ds_auto=trainer")
        assert experiment.replace(ds_auto="") == self.TRAINERS
        assert not any("auto" in note for note in notes)

    def test_is_the_default_of_transformers(self):
        from transformers import TrainingArguments

        theirs = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
        for ours, name in {
            auto.MICRO: "per_device_train_batch_size",
            "gradient_accumulation_steps": "gradient_accumulation_steps",
            "gradient_clipping": "max_grad_norm",
            "optimizer.params.lr": "learning_rate",
            "optimizer.params.eps": "adam_epsilon",
            "optimizer.params.weight_decay": "weight_decay",
            "fp16.enabled": "fp16",
            "bf16.enabled": "bf16",
        }.items():
            assert auto.FILLED[ours] == theirs[name], name

    def test_is_dropped(self, read):
        experiment, notes = read(
            HUGGING_FACE, "--ds_auto=deepspeed", "--batch_size=4", "--schedule_steps=9"
        )
        assert (experiment.learning_rate, experiment.warmup_steps) == (1e-3, 1000)
        assert (experiment.precision, experiment.clip_norm) == ("fp32", 1.0)
        told = next(note for note in notes if '"auto" is dropped' in note)
        assert "DeepSpeed itself would stop at train_batch_size, " in told

    @pytest.mark.parametrize("program", ["fp32", "fp16", "fp64"])
    def test_is_the_same_in_every_program(self, tmp_path, program):
        (tmp_path / "theirs.json").write_text(json.dumps(HUGGING_FACE))
        flag = f"--ds_config={tmp_path / 'theirs.json'}"
        assert command_line.parse(["prog", flag], program)[0].precision == "fp32"


class TestKeysNamed:
    """What only a running program finds wrong names the file's key too."""

    def ends(self, monkeypatch, capsys, path, *arguments):
        def main(experiment):
            schedules.learning_rates(experiment, 50)

        codes = []
        monkeypatch.setattr(sys, "argv", ["prog", f"--ds_config={path}", *arguments])
        command_line.run(main, "", "fp32", leave=codes.append)
        return codes, capsys.readouterr().err.splitlines()[-1]

    def test_a_schedule_that_ends_too_soon(self, monkeypatch, capsys, tmp_path):
        path = tmp_path / "theirs.json"
        path.write_text(
            json.dumps(schedule("WarmupDecayLR", total_num_steps=9, warmup_num_steps=2))
        )
        codes, line = self.ends(monkeypatch, capsys, path)
        assert codes == [2]
        assert line.startswith(
            f"error: --ds_config: {path}: scheduler.params.total_num_steps: "
            "--schedule_steps: the schedule ends after 9 of the run's 50 steps"
        )

    def test_a_flag_that_stands_in_for_a_silent_file(
        self, monkeypatch, capsys, tmp_path
    ):
        path = tmp_path / "theirs.json"
        path.write_text(json.dumps(schedule("WarmupDecayLR", total_num_steps="auto")))
        codes, line = self.ends(monkeypatch, capsys, path, "--schedule_steps=9")
        assert codes == [2]
        assert line.startswith("error: --schedule_steps: the schedule ends after 9")
