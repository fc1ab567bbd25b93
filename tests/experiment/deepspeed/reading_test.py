"""Tests of jaxnn/experiment/deepspeed/reading.py and its parts: a file trains what DeepSpeed would have."""

import dataclasses
import inspect
import json
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import jaxnn.train
from jaxnn.experiment import command_line, config, schedules
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.deepspeed import keys, writing
from tests.experiment.deepspeed.writing_test import hyperparameters
from torch_ref.optimizers import OPTIMIZERS

SEED = {"train_batch_size": 32, "train_micro_batch_size_per_gpu": 32, "gradient_accumulation_steps": 1,
        "optimizer": {"type": "Adam", "params": {"lr": 1e-3}}, "fp16": {"enabled": True}}
"""Of the seed document 000."""

LARGER = {"train_micro_batch_size_per_gpu": 32, "gradient_accumulation_steps": 2, "gradient_clipping": 1.0,
          "optimizer": {"type": "Adam", "params": {"lr": 2e-3, "weight_decay": 1e-5}},
          "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 100}},
          "zero_optimization": {"stage": 2, "overlap_comm": True, "offload_optimizer": {"device": "cpu"}},
          "bf16": {"enabled": True}, "steps_per_print": 10}
SILENT = {"train_batch_size": 32}
fast = settings(deadline=None, max_examples=50, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def read(tmp_path, capsys):
    """read(entries or text, flags...) -> (the experiment, its notes)."""

    def run(entries, *arguments):
        path = tmp_path / "theirs.json"
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        capsys.readouterr()
        experiment, _ = command_line.parse(["prog", f"--ds_config={path}", *arguments], "fp32")
        return experiment.replace(ds_config=""), capsys.readouterr().err.replace(f"{path}", "theirs.json").splitlines()

    return run


def block(kind, **params):
    return {**SILENT, "optimizer": {"type": kind, "params": params}}


def schedule(kind, **params):
    return {**block("SGD", lr=0.5), "scheduler": {"type": kind, "params": params}}


class TestSeedDocument:
    def test_is_adamw_fp16_clipped_without_zero(self, read):
        experiment, notes = read(SEED)
        assert experiment == Experiment(optimizer="adamw", precision="fp16", clip_norm=1.0, zero_stage=0)
        assert notes[:3] == [
            "note: --ds_config: optimizer.type: DeepSpeed's Adam is AdamW unless adam_w_mode is false: "
            "--optimizer=adamw",
            "note: --ds_config: gradient_clipping: not in theirs.json; DeepSpeed's default: --clip_norm=1.0; 0 in the "
            "file switches clipping off",
            "note: --ds_config: zero_optimization.stage: not in theirs.json; DeepSpeed's default: --zero_stage=0; no "
            "ZeRO"]
        assert "pull request 8393" in notes[3]
        assert len(notes) == 4

    def test_flags_decide_what_it_does_not_say(self, read):
        experiment, notes = read(SEED, "--zero_stage=1", "--clip_norm=0", "--optimizer=adam")
        assert experiment == Experiment(optimizer="adam", precision="fp16", clip_norm=0.0, zero_stage=1)
        assert notes == []

    def test_goes_with_the_flagfile_of_the_same_experiment(self, read):
        experiment, _ = read(SEED, "--flagfile=launch/experiments/linear_regression.flags")
        assert (experiment.name, experiment.optimizer, experiment.clip_norm) == ("linear_regression", "adam", 1.0)


class TestLargerConfig:
    def test_every_field(self, read):
        experiment, notes = read(LARGER)
        assert experiment == Experiment(
            batch_size=64, accumulation_steps=2, clip_norm=1.0, optimizer="adamw", learning_rate=2e-3,
            weight_decay=1e-5, schedule="warmup_lr", warmup_steps=100, zero_stage=2, precision="bf16")
        assert notes[1:] == [
            "note: --ds_config: scheduler.params.warmup_type: not in theirs.json; DeepSpeed's warm-up is a logarithm "
            "by default",
            "note: --ds_config: ignored, without a meaning in JAX: zero_optimization.overlap_comm, "
            "zero_optimization.offload_optimizer, steps_per_print"]

    def test_flags_of_the_run_are_the_resolved_ones(self, read, tmp_path):
        experiment, _ = read(LARGER)
        (tmp_path / "experiment.flags").write_text(config.to_flagfile(experiment))
        assert command_line.parse(["prog", f"--flagfile={tmp_path / 'experiment.flags'}"], "fp32")[0] == experiment


class TestBatch:
    SIZES = st.one_of(st.none(), st.integers(1, 12))

    @given(st.one_of(st.none(), st.integers(1, 96)), SIZES, SIZES, st.integers(1, 4))
    @fast
    def test_is_deepspeeds_arithmetic(self, read, theirs, train, micro, parts, ranks):
        sizes = {"train_batch_size": train, "train_micro_batch_size_per_gpu": micro,
                 "gradient_accumulation_steps": parts}
        entries = {key: value for key, value in sizes.items() if value is not None}
        try:
            expected = theirs(entries, ranks)
        except AssertionError:
            with pytest.raises(UserError, match=r"^--ds_config: .*train_(micro_)?batch_size"):
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
        experiment, _ = read({"train_micro_batch_size_per_gpu": 8}, "--accumulation_steps=4")
        assert (experiment.batch_size, experiment.accumulation_steps) == (32, 4)


class TestOptimizer:
    @pytest.mark.parametrize("entries", [
        block("Adam"), block("adam", weight_decay=0.1), block("ADAM", adam_w_mode=False, weight_decay=0.1),
        block("Adam", torch_adam=True), block("Adam", torch_adam=True, adam_w_mode=False),
        block("Adam", lr=0.01, betas=[0.8, 0.99], eps=1e-6, bias_correction=True, amsgrad=False),
        block("AdamW"), block("AdamW", adam_w_mode=False, weight_decay=0.1), block("AdamW", torch_adam=True),
        block("AdamW", torch_adam=True, weight_decay=0.2), {**SILENT, "optimizer": {"type": "AdamW"}},
        block("SGD"), block("SGD", lr=0.1, momentum=0.9), block("SGD", momentum=0.9, nesterov=True, weight_decay=0.1),
        block("SGD", momentum=0, dampening=0), block("RMSprop"),
        block("RMSprop", alpha=0.9, eps=1e-6, weight_decay=0.1),
        block("Adagrad"), block("adagrad", lr=0.1, initial_accumulator_value=0.1, eps=1e-7, weight_decay=0.1),
    ], ids=lambda entries: json.dumps(entries["optimizer"]))
    def test_is_what_deepspeed_builds(self, read, build_optimizer, entries):
        experiment, _ = read(entries)
        params = [torch.nn.Parameter(torch.ones(2, 2))]
        ours, built = OPTIMIZERS[experiment.optimizer](experiment, params), build_optimizer(entries, params)
        assert type(ours) is type(built)
        assert hyperparameters(ours) == hyperparameters(built)

    @pytest.mark.parametrize(("entries", "note"), [
        (SILENT, "optimizer: not in theirs.json; --optimizer and its flags decide"),
        (block("AdamW", torch_adam=True), "optimizer.params.weight_decay: not in theirs.json; DeepSpeed's default: "
         "--weight_decay=0.01; torch's AdamW decays unless told otherwise"),
        (block("RMSprop"), "optimizer.params.lr: not in theirs.json; DeepSpeed's default: --learning_rate=0.01"),
        (block("SGD"), "optimizer.params.momentum: not in theirs.json; torch's SGD has none by default: "
         "--optimizer=sgd"),
        ({**block("SGD", momentum=0.9), "zero_optimization": {"stage": 1}}, "zero_allow_untested_optimizer: DeepSpeed "
         "itself refuses this optimizer under ZeRO unless it is true"),
    ])
    def test_notes(self, read, entries, note):
        assert f"note: --ds_config: {note}" in read(entries)[1]

    def test_adam_flag_contradicts_decay_that_is_decoupled(self, read):
        with pytest.raises(UserError, match=r"optimizer\.type means --optimizer=adamw, the flag says --optimizer=adam"):
            read(block("Adam", weight_decay=0.1), "--optimizer=adam")


class TestScheduler:
    @pytest.mark.parametrize("entries", [
        schedule("WarmupLR", warmup_num_steps=10), schedule("WarmupLR", warmup_max_lr=0.2, warmup_num_steps=7),
        schedule("WarmupLR", warmup_min_lr=0.1, warmup_num_steps=10, warmup_type="linear"),
        schedule("WarmupDecayLR", total_num_steps=40, warmup_num_steps=10),
        schedule("WarmupDecayLR", total_num_steps=50, warmup_num_steps=10, warmup_max_lr=0.2, warmup_type="linear"),
        schedule("WarmupCosineLR", total_num_steps=40, warmup_num_steps=10),
        schedule("WarmupCosineLR", total_num_steps=50, warmup_num_steps=10, warmup_min_ratio=0.1, cos_min_ratio=0.1),
        schedule("WarmupCosineLR", total_num_steps=40, warmup_num_steps=3, warmup_min_ratio=0.2, cos_min_ratio=0.05),
    ], ids=lambda entries: json.dumps(entries["scheduler"]))
    def test_every_rate_is_deepspeeds(self, read, entries):
        ours = schedules.learning_rates(read(entries)[0], 40)
        optimizer, rates = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5), []
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            from deepspeed.runtime import lr_schedules

            patch.setattr(lr_schedules.logger, "warning", lambda message: None)
            scheduler = getattr(lr_schedules, entries["scheduler"]["type"])(optimizer, **entries["scheduler"]["params"])
            for _ in range(40):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
        # A float32 ulp for the rounding, four float64 ulps of the peak for rates that are small differences.
        np.testing.assert_allclose(ours, np.float32(rates), rtol=np.finfo(np.float32).eps, atol=0.5 * 4 * 2.0**-52)

    def test_defaults_are_deepspeeds(self, read):
        from deepspeed.runtime import lr_schedules

        for name, changes in (("WarmupLR", {}), ("WarmupDecayLR", {"total_num_steps": 5000})):
            theirs = inspect.signature(getattr(lr_schedules, name)).parameters
            experiment, notes = read(schedule(name, **changes))
            assert experiment.warmup_steps == theirs["warmup_num_steps"].default == 1000
            assert experiment.warmup_type == theirs["warmup_type"].default == "log"
            assert experiment.min_learning_rate == theirs["warmup_min_lr"].default
            assert experiment.learning_rate == (theirs["warmup_max_lr"].default or 0.5)
            assert any("scheduler.params.warmup_num_steps: not in theirs.json" in note for note in notes)

    def test_a_run_may_end_within_the_warm_up(self, read):
        rates = schedules.learning_rates(read(schedule("WarmupLR", warmup_type="linear"))[0], 5)
        np.testing.assert_array_equal(rates, np.float32([0, 0, 0.0005, 0.001, 0.0015]))

    def test_notes_a_rate_that_is_never_used(self, read):
        _, notes = read(schedule("WarmupLR", warmup_max_lr=0.25, warmup_num_steps=10, warmup_type="log"))
        assert ("note: --ds_config: optimizer.params.lr: 0.5 is never used: scheduler.params.warmup_max_lr is the "
                "peak, 0.25") in notes


class TestPrecision:
    @pytest.mark.parametrize(("entries", "precision"), [
        ({}, "fp32"), ({"fp16": {"enabled": False}}, "fp32"), ({"fp16": {"enabled": True}}, "fp16"),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": False}}, "bf16"), ({"bfloat16": {"enabled": True}}, "bf16"),
        ({"fp16": {}}, "fp32"), ({"fp16": None}, "fp32")])
    def test_format(self, read, entries, precision):
        assert read({**SILENT, **entries})[0].precision == precision

    def test_scaler_is_deepspeeds(self, read, theirs):
        for given_values in ({}, dict(loss_scale=128, initial_scale_power=10, loss_scale_window=5, hysteresis=4,
                                      consecutive_hysteresis=True, min_loss_scale=2)):
            entries = {**SILENT, "fp16": {"enabled": True, **given_values}}
            experiment, expected = read(entries)[0], theirs(entries).float16_config
            assert experiment.static_loss_scale == expected.loss_scale
            for name in ("initial_scale_power", "loss_scale_window", "hysteresis", "consecutive_hysteresis",
                         "min_loss_scale"):
                assert getattr(experiment, name) == getattr(expected, name), name
            assert type(experiment.min_loss_scale) is float

    @pytest.mark.parametrize(("stage", "expected"), [({"stage": 3}, 3), ({}, 0), (True, 1), (False, 0)])
    def test_zero_stage(self, read, theirs, stage, expected):
        entries = {**SILENT, "zero_optimization": stage}
        assert read(entries)[0].zero_stage == expected == theirs(entries).zero_optimization_stage


HUGGING_FACE = {
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto", "fp16": {"enabled": "auto", "hysteresis": 3},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto",
                                                      "warmup_num_steps": "auto", "total_num_steps": "auto"}},
    "zero_optimization": {"stage": 1, "reduce_bucket_size": "auto"}}


class TestAuto:
    def test_is_left_to_the_flags(self, read):
        flags = dict(batch_size=64, accumulation_steps=2, clip_norm=3.0, learning_rate=0.25, adam_eps=1e-6,
                     weight_decay=0.5, warmup_steps=9, min_learning_rate=0.125, precision="bf16")
        experiment, notes = read(HUGGING_FACE, *(f"--{name}={value}" for name, value in flags.items()))
        assert experiment == Experiment(**flags, optimizer="adamw", schedule="warmup_decay_lr", hysteresis=3)
        left = next(note for note in notes if "left to the flags" in note)
        assert left.endswith("total_num_steps")
        assert "train_batch_size, " in left
        assert "reduce_bucket_size" not in left

    def test_without_flags_are_jaxnns_defaults(self, read):
        experiment, _ = read(HUGGING_FACE)
        assert (experiment.batch_size, experiment.clip_norm, experiment.learning_rate) == (32, 0.0, 1e-3)


BAD = {
    "not JSON": ("{,}", "is not JSON"),
    "a list": ("[1]", r"must hold an object \{...\}, got \[1\]"),
    "a key twice": ('{"train_batch_size": 1, "train_batch_size": 2}', "train_batch_size: is there twice"),
    "no batch size": ({}, "train_batch_size: is missing; give it or train_micro_batch_size_per_gpu"),
    "batch of 0": ({"train_batch_size": 0}, "train_batch_size: must be at least 1, got 0"),
    "half a sample": ({"train_batch_size": 1.5}, "train_batch_size: must be a whole number, got 1.5"),
    "batch that is text": ({"train_batch_size": "32"}, "train_batch_size: must be a whole number, got \"32\""),
    "contradictory sizes": ({"train_batch_size": 64, "train_micro_batch_size_per_gpu": 8,
                             "gradient_accumulation_steps": 2},
                            "train_micro_batch_size_per_gpu: 8 times gradient_accumulation_steps 2 times 1 device is "
                            "not train_batch_size 64; --num_devices=4 would do"),
    "typo": ({"train_batch_sise": 32}, "train_batch_sise: unknown key; did you mean train_batch_size?"),
    "nested typo": ({**SILENT, "fp16": {"enable": True}}, "fp16.enable: unknown key; did you mean fp16.enabled?"),
    "key in another block": ({**SILENT, "hysteresis": 2}, "hysteresis: unknown key; did you mean fp16.hysteresis?"),
    "unlike any key": ({**SILENT, "xyz": 2}, "xyz: unknown key$"),
    "key with a dot": ({**SILENT, "fp16.enabled": True}, '"fp16.enabled": unknown key'),
    "unknown auto": ({**SILENT, "xyz": "auto"}, "xyz: unknown key"),
    "typo in params": (block("Adam", learning_rate=1), "optimizer.params.learning_rate: unknown key"),
    "params of another": (block("SGD", betas=[0, 0]), "optimizer.params.betas: unknown key"),
    "block that is none": ({**SILENT, "optimizer": "Adam"}, 'optimizer: must be an object, got "Adam"'),
    "optimizer without type": ({**SILENT, "optimizer": {"params": {"lr": 1}}}, "optimizer.type: is missing; say which"),
    "scheduler without type": ({**SILENT, "scheduler": {"params": {}, "x": 1}}, "scheduler.x: unknown key"),
    "scheduler with params alone": ({**SILENT, "scheduler": {"params": {"a": 1}}}, "scheduler.type: is missing"),
    "no bias correction": (block("Adam", bias_correction=False), "optimizer.params.bias_correction: false is not"),
    "amsgrad": (block("AdamW", amsgrad=True), "optimizer.params.amsgrad: true is not supported; only false is"),
    "max_grad_norm": (block("AdamW", max_grad_norm=1), "optimizer.params.max_grad_norm: DeepSpeed refuses it here"),
    "dampening": (block("SGD", momentum=0.9, dampening=0.9), "optimizer.params.dampening: 0.9 is not supported"),
    "nesterov alone": (block("SGD", nesterov=True), "optimizer.params.nesterov: needs a momentum"),
    "centered": (block("RMSprop", centered=True), "optimizer.params.centered: true is not supported"),
    "lr_decay": (block("Adagrad", lr_decay=0.1), "optimizer.params.lr_decay: 0.1 is not supported"),
    "one beta": (block("Adam", betas=[0.9]), r"optimizer.params.betas: must be two numbers, got \[0.9\]"),
    "beta of 1": (block("Adam", betas=[1, 0.9]), "optimizer.params.betas: --adam_b1: must be less than 1, got 1.0"),
    "negative rate": (block("Adam", lr=-1), "optimizer.params.lr: --learning_rate: must be greater than 0, got -1.0"),
    "rate nan": ('{"train_batch_size": 1, "optimizer": {"type": "Adam", "params": {"lr": NaN}}}',
                 "optimizer.params.lr: --learning_rate: must be a finite number, got nan"),
    "rate that is text": (block("Adam", lr="1e-3"), 'optimizer.params.lr: must be a number, got "1e-3"'),
    "true for a number": (block("Adam", lr=True), "optimizer.params.lr: must be a number, got true"),
    "number too large": ({"train_batch_size": 10**400}, "train_batch_size: must be a whole number"),
    "number for true": ({**SILENT, "fp16": {"enabled": 1}}, "fp16.enabled: must be true or false, got 1"),
    "one cycle": (schedule("OneCycle"), 'scheduler.type: "OneCycle" is not supported; known: WarmupLR, WarmupDecayLR'),
    "range test": (schedule("LRRangeTest"), 'scheduler.type: "LRRangeTest" is not supported'),
    "warm-up of 0": (schedule("WarmupLR", warmup_num_steps=0), "scheduler.params.warmup_num_steps: must be at least 1"),
    "curve": (schedule("WarmupLR", warmup_type="cubic"), "scheduler.params.warmup_type: --warmup_type: unknown value"),
    "no total": (schedule("WarmupDecayLR"), "scheduler.params.total_num_steps: is missing"),
    "ratio of another": (schedule("WarmupCosineLR", total_num_steps=9, warmup_min_lr=0.1),
                         "scheduler.params.warmup_min_lr: unknown key"),
    "cosine to 0": (schedule("WarmupCosineLR", total_num_steps=9, warmup_min_ratio=0.1, cos_min_ratio=0),
                    "scheduler.params.cos_min_ratio: 0 is not supported with scheduler.params.warmup_min_ratio above"),
    "resumed scheduler": (schedule("WarmupLR", last_batch_iteration=5),
                          "scheduler.params.last_batch_iteration: 5 is not supported; only -1 is"),
    "both formats": ({**SILENT, "fp16": {"enabled": True}, "bf16": {"enabled": True}},
                     "bf16.enabled: so is fp16.enabled"),
    "stage 4": ({**SILENT, "zero_optimization": {"stage": 4}}, "zero_optimization.stage: --zero_stage: must be less"),
    "smallest scale above the first": ({**SILENT, "fp16": {"initial_scale_power": 2, "min_loss_scale": 8}},
                                       "fp16.min_loss_scale: --min_loss_scale: 8 is above the scale to start with"),
    **{f"optimizer {name}": (block(name), f'optimizer.type: "{name}" is not supported; known: Adam, AdamW, SGD')
       for name in ("Lamb", "Lion", "OneBitAdam", "OneBitLamb", "ZeroOneAdam", "Muon", "MuAdam", "sgd", "Adamax")},
}


class TestBadInput:
    @pytest.mark.parametrize("case", BAD)
    def test_names_the_flag_and_the_key(self, read, case):
        entries, problem = BAD[case]
        with pytest.raises(UserError, match=rf"^--ds_config: \S+theirs.json: {problem}") as error:
            read(entries)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("key", keys.REQUIRED)
    def test_what_would_change_the_mathematics(self, read, key):
        only = keys.REQUIRED[key]
        read(nested(key, only))
        with pytest.raises(UserError, match=rf"^--ds_config: \S+: {key}: .* would change what is computed; only"):
            read(nested(key, not only if isinstance(only, bool) else "sum" if only == "mean" else only + 1))

    @pytest.mark.parametrize("key", keys.REFUSED)
    def test_blocks_that_would_change_the_mathematics(self, read, key):
        with pytest.raises(UserError, match=rf"^--ds_config: \S+: {key}: is not supported, and would change"):
            read(nested(key, {"some": {"thing": 1}}))

    def test_file_that_does_not_exist(self):
        with pytest.raises(UserError, match=r"^--ds_config: cannot read /nowhere.json: No such file"):
            command_line.parse(["prog", "--ds_config=/nowhere.json"], "fp32")

    @pytest.mark.parametrize(("entries", "flag", "key"), [
        (SEED, "--batch_size=64", "train_batch_size"), (SEED, "--precision=fp32", "fp16.enabled"),
        (SEED, "--learning_rate=0.5", "optimizer.params.lr"), (LARGER, "--zero_stage=1", "zero_optimization.stage"),
        (LARGER, "--clip_norm=2", "gradient_clipping"),
        (LARGER, "--warmup_steps=5", "scheduler.params.warmup_num_steps"),
        (LARGER, "--schedule=cosine", "scheduler.type"), (LARGER, "--weight_decay=0", "optimizer.params.weight_decay")])
    def test_a_flag_that_says_otherwise(self, read, entries, flag, key):
        with pytest.raises(UserError, match=rf"^--ds_config: \S+: {key} means --.*, the flag says {flag}"):
            read(entries, flag)

    def test_a_flag_that_says_the_same(self, read):
        flags = ("--batch_size=64", "--zero_stage=2", "--weight_decay=0.00001", "--schedule=warmup_lr")
        assert read(LARGER, *flags)[0] == read(LARGER)[0]

    def test_a_rate_that_is_a_ratio_may_be_rounded(self, read):
        entries = schedule("WarmupCosineLR", total_num_steps=9, warmup_min_ratio=0.1 + 0.2, cos_min_ratio=0.3)
        assert read(entries, "--min_learning_rate=0.15")[0].min_learning_rate == 0.15

    def test_a_program_ends_with_one_line_and_exit_code_2(self, monkeypatch, capsys, tmp_path):
        (tmp_path / "theirs.json").write_text("{}")
        monkeypatch.setattr(sys, "argv", ["train", f"--ds_config={tmp_path / 'theirs.json'}"])
        with pytest.raises(SystemExit) as end:
            command_line.run(jaxnn.train.main, "", default_precision="fp32")
        err = capsys.readouterr().err
        assert end.value.code == 2
        assert err.startswith("error: --ds_config: ")
        assert err.count("\n") == 1


class TestIgnored:
    @pytest.mark.parametrize("key", [key for key in keys.IGNORED if f"{key}.enabled" not in keys.REQUIRED
                                     and key not in ("tensor_parallel", "optimizer.legacy_fusion")])
    def test_is_named_and_changes_nothing(self, read, key):
        plain, before = read(SILENT)
        for value in (7, {"anything": {"at": ["all"]}}):
            experiment, notes = read(nested(key, value))
            assert experiment == plain
            assert [note for note in notes if note not in before] == [
                f"note: --ds_config: ignored, without a meaning in JAX: {key}"]

    def test_in_a_block_that_is_read_or_off(self, read):
        entries = {**SILENT, "optimizer": {"type": "AdamW", "legacy_fusion": True}, "amp": {"opt_level": "O1"}}
        experiment, notes = read(entries)
        assert experiment == read({**SILENT, "optimizer": {"type": "AdamW"}})[0]
        assert "note: --ds_config: ignored, without a meaning in JAX: optimizer.legacy_fusion, amp" in notes

    def test_notes_come_from_the_first_rank_alone(self, read, monkeypatch):
        assert read(SEED)[1]
        monkeypatch.setenv("RANK", "1")
        assert read(SEED)[1] == []


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return {**SILENT, **value}


@st.composite
def expressible(draw):
    """(experiment, ranks) of what DeepSpeed can say."""
    ranks, power = draw(st.integers(1, 4)), draw(st.integers(0, 127))
    shares, small = st.floats(0, 1, exclude_max=True), st.floats(1e-12, 10)
    parts, optimizer = draw(st.integers(1, 5)), draw(st.sampled_from(sorted(writing.OPTIMIZERS)))
    kept = {"momentum": st.floats(1e-6, 0.999)}
    own = {"sgd": {}, "momentum": kept, "nesterov": kept,
           "adam": {"adam_b1": shares, "adam_b2": shares, "adam_eps": small, "fused_adam": st.booleans()},
           "rmsprop": {"rmsprop_decay": shares, "rmsprop_eps": small},
           "adagrad": {"adagrad_eps": small, "adagrad_initial": st.floats(0, 10)}}
    fields = {name: draw(values) for name, values in own["adam" if optimizer == "adamw" else optimizer].items()}
    fields["weight_decay" if optimizer == "adamw" else "l2"] = draw(st.floats(0, 1))
    fields["learning_rate"], curve = draw(small), draw(st.sampled_from(["constant", *writing.SCHEDULERS]))
    if curve != "constant":
        fields |= {"warmup_steps": draw(st.integers(1, 1000)), "warmup_type": draw(st.sampled_from(["log", "linear"])),
                   "min_learning_rate": draw(st.floats(0, 1)) * fields["learning_rate"]}
    if curve in ("warmup_decay_lr", "warmup_cosine_lr"):
        fields["schedule_steps"] = draw(st.integers(1, 10**6))
    if curve == "warmup_cosine_lr":
        fields["final_learning_rate"] = draw(st.sampled_from([0.0, 0.5])) * fields["learning_rate"]
        assume(fields["final_learning_rate"] != fields["min_learning_rate"] or not fields["final_learning_rate"])
    return Experiment(
        optimizer=optimizer, schedule=curve, batch_size=ranks * parts * draw(st.integers(1, 64)), num_devices=ranks,
        accumulation_steps=parts, clip_norm=draw(st.floats(0, 10)), zero_stage=draw(st.integers(0, 3)),
        precision=draw(st.sampled_from(["fp32", "bf16", "fp16"])), initial_scale_power=power,
        loss_scale_window=draw(st.integers(1, 2000)), hysteresis=draw(st.integers(1, 9)),
        consecutive_hysteresis=draw(st.booleans()), min_loss_scale=2.0 ** draw(st.integers(0, power)),
        static_loss_scale=draw(st.floats(0, 2.0**20)), **fields), ranks


class TestRoundTrip:
    RATIOS = ("min_learning_rate", "final_learning_rate")

    @given(expressible())
    @settings(fast, max_examples=200)
    def test_a_written_file_is_the_experiment_again(self, read, drawn):
        experiment, ranks = drawn
        config.check(experiment)
        again, _ = read(writing.file_config(experiment, ranks, experiment.schedule_steps), f"--num_devices={ranks}")
        if experiment.schedule == "warmup_cosine_lr":
            for name in self.RATIOS:  # through a division and a multiplication, half an ulp each
                assert getattr(again, name) == pytest.approx(getattr(experiment, name), rel=2.0**-51, abs=0)
            again = again.replace(**{name: getattr(experiment, name) for name in self.RATIOS})
        assert dataclasses.asdict(again) == dataclasses.asdict(experiment)

    @given(expressible())
    @fast
    def test_deepspeed_reads_the_file_too(self, theirs, drawn):
        experiment, ranks = drawn
        entries = writing.file_config(experiment, ranks, experiment.schedule_steps)
        expected = theirs(json.loads(json.dumps(entries)), ranks)
        assert expected.train_batch_size == experiment.batch_size
        assert expected.optimizer_params == entries["optimizer"]["params"]
