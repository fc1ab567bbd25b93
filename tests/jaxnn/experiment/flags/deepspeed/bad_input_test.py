"""Files that jaxnn cannot train as they say: refused in one line that names the key."""

import sys

import pytest

import jaxnn.train
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.deepspeed import keys, strict
from tests.jaxnn.experiment.flags.deepspeed.entries import (
    LARGER,
    SILENT,
    TUTORIAL,
    block,
    nested,
    schedule,
)

BAD = {
    "not JSON": ("{,}", "is not JSON"),
    "a list": ("[1]", r"must hold an object \{...\}, got \[1\]"),
    "a key twice": (
        '{"train_batch_size": 1, "train_batch_size": 2}',
        "train_batch_size: is there twice",
    ),
    "no batch size": (
        {},
        "train_batch_size: is missing; give it or train_micro_batch_size_per_gpu",
    ),
    "batch of 0": (
        {"train_batch_size": 0},
        "train_batch_size: must be at least 1, got 0",
    ),
    "half a sample": (
        {"train_batch_size": 1.5},
        "train_batch_size: must be a whole number, got 1.5",
    ),
    "batch that is text": (
        {"train_batch_size": "32"},
        'train_batch_size: must be a whole number, got "32"',
    ),
    "contradictory sizes": (
        {
            "train_batch_size": 64,
            "train_micro_batch_size_per_gpu": 8,
            "gradient_accumulation_steps": 2,
        },
        "train_micro_batch_size_per_gpu: 8 times gradient_accumulation_steps 2 times "
        "1 device is not train_batch_size 64; --num_devices=4 would do",
    ),
    "nested typo": (
        {**SILENT, "fp16": {"enable": True}},
        r"fp16.enable: unknown key, which DeepSpeed refuses; did you mean "
        r"fp16.enabled\?",
    ),
    "key with a dot": (
        {**SILENT, "fp16": {"a.enabled": True}},
        'fp16."a.enabled": unknown key, which DeepSpeed refuses',
    ),
    "object for a number": (
        {"train_batch_size": {"a": 1}},
        "train_batch_size: must be a plain value, got an object",
    ),
    "object for a boolean": (
        {**SILENT, "fp16": {"enabled": {"a": 1}}},
        "fp16.enabled: must be a plain value, got an object",
    ),
    "format": (
        {**SILENT, "communication_data_type": "half"},
        'communication_data_type: DeepSpeed knows fp16, bf16, fp32, got "half"',
    ),
    "number for params": (
        {**SILENT, "optimizer": {"type": "Adam", "params": 5}},
        "optimizer.params: must be an object, got 5",
    ),
    "unlike any key": (
        {**SILENT, "compile": {"backend": "inductor"}},
        "compile.backend: unknown key, which DeepSpeed refuses$",
    ),
    "nobody's auto": (
        block("Adam", adam_w_mode="auto"),
        'optimizer.params.adam_w_mode: "auto" is filled in by nobody',
    ),
    "null": (
        {**SILENT, "fp16": {"enabled": None}},
        "fp16.enabled: DeepSpeed refuses null here",
    ),
    "null for a block": (
        {**SILENT, "zero_optimization": None},
        "zero_optimization: must be an object, got null",
    ),
    "old and new name": (
        {
            **SILENT,
            "zero_optimization": {"cpu_offload": True, "offload_optimizer": {}},
        },
        "zero_optimization.cpu_offload: DeepSpeed refuses it beside",
    ),
    "bucket of 0": (
        {**SILENT, "zero_optimization": {"reduce_bucket_size": 0}},
        "zero_optimization.reduce_bucket_size: must be at least 1, got 0",
    ),
    "device": (
        {**SILENT, "zero_optimization": {"offload_param": {"device": "gpu"}}},
        'zero_optimization.offload_param.device: must be "none", "cpu" or "nvme"',
    ),
    "gradients in another format without ZeRO": (
        {**SILENT, "data_types": {"grad_accum_dtype": "bf16"}},
        "data_types.grad_accum_dtype: DeepSpeed refuses bf16 at ZeRO stage 0 in fp32",
    ),
    "placeholder": (
        '{"train_batch_size": CONFIG_BATCH_SIZE,\n"x": 1}',
        "train_batch_size: must be a whole number.*CONFIG_BATCH_SIZE is a placeholder",
    ),
    "template": (
        '{"train_batch_size": {{ batch }}, "x": 1}',
        r"is not JSON.*: \{\{ batch \}\} is a placeholder",
    ),
    "Git LFS": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "is a Git LFS pointer",
    ),
    "comment without end": ("/*", "is not JSON.*has no end"),
    "infinite": ('{"train_batch_size": 1e999}', "is not JSON.*too large"),
    "Python's True": (
        '{"train_batch_size": 1, "fp16": {"enabled": True,\n"hysteresis": 2}}',
        'fp16.enabled: must be true or false, got "True,"; Hjson.* end of its line',
    ),
    "typo in params": (
        block("Adam", learning_rate=1),
        "optimizer.params.learning_rate: unknown key",
    ),
    "params of another": (
        block("SGD", betas=[0, 0]),
        "optimizer.params.betas: unknown key",
    ),
    "block that is none": (
        {**SILENT, "optimizer": "Adam"},
        'optimizer: must be an object, got "Adam"',
    ),
    "scheduler without params": (
        {**SILENT, "scheduler": {"type": "WarmupLR"}},
        "scheduler.params: is missing; DeepSpeed stops without it",
    ),
    "no bias correction": (
        block("Adam", bias_correction=False),
        "optimizer.params.bias_correction: false is not",
    ),
    "amsgrad": (
        block("AdamW", amsgrad=True),
        "optimizer.params.amsgrad: true is not supported; only false is",
    ),
    "max_grad_norm": (
        block("AdamW", max_grad_norm=1),
        "optimizer.params.max_grad_norm: DeepSpeed refuses it here",
    ),
    "dampening": (
        block("SGD", momentum=0.9, dampening=0.9),
        "optimizer.params.dampening: 0.9 is not supported",
    ),
    "nesterov alone": (
        block("SGD", nesterov=True),
        "optimizer.params.nesterov: needs a momentum",
    ),
    "centered": (
        block("RMSprop", centered=True),
        "optimizer.params.centered: true is not supported",
    ),
    "lr_decay": (
        block("Adagrad", lr_decay=0.1),
        "optimizer.params.lr_decay: 0.1 is not supported",
    ),
    "one beta": (
        block("Adam", betas=[0.9]),
        r"optimizer.params.betas: must be two numbers, got \[0.9\]",
    ),
    "beta of 1": (
        block("Adam", betas=[1, 0.9]),
        "optimizer.params.betas: --adam_b1: must be less than 1, got 1.0",
    ),
    "negative rate": (
        block("Adam", lr=-1),
        "optimizer.params.lr: --learning_rate: must be greater than 0, got -1.0",
    ),
    "rate nan": (
        '{"train_batch_size": 1, "optimizer": {"type": "Adam", "params": {"lr": NaN\n'
        "}}}",
        'optimizer.params.lr: must be a number, got "NaN"',
    ),
    "rate that is text": (
        block("Adam", lr="1e-3"),
        'optimizer.params.lr: must be a number, got "1e-3"',
    ),
    "true for a number": (
        block("Adam", lr=True),
        "optimizer.params.lr: must be a number, got true",
    ),
    "number too large": (
        {"train_batch_size": 10**400},
        "train_batch_size: must be a whole number",
    ),
    "number for true": (
        {**SILENT, "fp16": {"enabled": 2}},
        "fp16.enabled: must be true or false, got 2",
    ),
    "one cycle": (
        schedule("OneCycle"),
        'scheduler.type: "OneCycle" is not supported .*beta2 0.99 for ever; MISMATCHES '
        r"D22\); known: WarmupLR, WarmupDecayLR",
    ),
    "range test": (
        schedule("LRRangeTest"),
        'scheduler.type: "LRRangeTest" is not supported',
    ),
    "warm-up of 0": (
        schedule("WarmupLR", warmup_num_steps=0),
        "scheduler.params.warmup_num_steps: must be at least 1",
    ),
    "no total": (
        schedule("WarmupDecayLR"),
        "scheduler.params.total_num_steps: is missing",
    ),
    "ratio of another": (
        schedule("WarmupCosineLR", total_num_steps=9, warmup_min_lr=0.1),
        "scheduler.params.warmup_min_lr: unknown key",
    ),
    "cosine to 0": (
        schedule(
            "WarmupCosineLR", total_num_steps=9, warmup_min_ratio=0.1, cos_min_ratio=0
        ),
        "scheduler.params.cos_min_ratio: 0 is not supported with "
        "scheduler.params.warmup_min_ratio above",
    ),
    "resumed scheduler": (
        schedule("WarmupLR", last_batch_iteration=5),
        "scheduler.params.last_batch_iteration: 5 is not supported; only -1 is",
    ),
    "both formats": (
        {**SILENT, "fp16": {"enabled": True}, "bf16": {"enabled": True}},
        "bf16.enabled: so is fp16.enabled",
    ),
    "stage 4": (
        {**SILENT, "zero_optimization": {"stage": 4}},
        "zero_optimization.stage: --zero_stage: must be less",
    ),
    "smallest scale above the first": (
        {**SILENT, "fp16": {"initial_scale_power": 2, "min_loss_scale": 8}},
        "fp16.min_loss_scale: --min_loss_scale: 8 is above the scale to start with",
    ),
    **{
        f"optimizer {name}": (
            block(name),
            f'optimizer.type: "{name}" is not supported; known: Adam, AdamW, SGD',
        )
        for name in ("Lamb", "Lion", "Muon", "MuAdam", "Adamax")
    },
    **{
        f"optimizer {name}": (
            block(name),
            f'optimizer.type: "{name}" is unknown to DeepSpeed 0.19.8, and not',
        )
        for name in ("OneBitAdam", "OneBitLamb", "ZeroOneAdam", "sgd")
    },
    **{
        f"removed {key}": (nested(key, False), f"{key}: DeepSpeed 0.19.8 has removed")
        for key in strict.REMOVED
    },
}


class TestBadInput:
    @pytest.mark.parametrize("case", BAD)
    def test_names_the_flag_and_the_key(self, read, case):
        entries, problem = BAD[case]
        with pytest.raises(
            UserError, match=rf"^--ds_config: \S+theirs.json: {problem}"
        ) as error:
            read(entries)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("key", keys.REQUIRED)
    def test_what_would_change_the_mathematics(self, read, key):
        only, _ = keys.REQUIRED[key]
        read(nested(key, only))
        with pytest.raises(
            UserError,
            match=rf"^--ds_config: \S+: {key}: .* would change what is computed: .*; "
            "only",
        ):
            read(
                nested(
                    key,
                    not only
                    if isinstance(only, bool)
                    else "sum"
                    if only == "mean"
                    else only + 1,
                )
            )

    @pytest.mark.parametrize("key", keys.REFUSED)
    def test_blocks_that_would_change_the_mathematics(self, read, key):
        with pytest.raises(
            UserError,
            match=rf"^--ds_config: \S+: {key}: is not supported, and would change",
        ):
            read(nested(key, {"some": {"thing": 1}}))

    def test_file_that_does_not_exist(self):
        with pytest.raises(
            UserError, match=r"^--ds_config: cannot read /nowhere.json: No such file"
        ):
            command_line.parse(["prog", "--ds_config=/nowhere.json"], "fp32")

    @pytest.mark.parametrize(
        ("entries", "flag", "key"),
        [
            (TUTORIAL, "--batch_size=64", "train_batch_size"),
            (TUTORIAL, "--precision=fp32", "fp16.enabled"),
            (TUTORIAL, "--learning_rate=0.5", "optimizer.params.lr"),
            (LARGER, "--zero_stage=1", "zero_optimization.stage"),
            (LARGER, "--clip_norm=2", "gradient_clipping"),
            (LARGER, "--warmup_steps=5", "scheduler.params.warmup_num_steps"),
            (LARGER, "--schedule=cosine", "scheduler.type"),
            (LARGER, "--weight_decay=0", "optimizer.params.weight_decay"),
        ],
    )
    def test_a_flag_that_says_otherwise(self, read, entries, flag, key):
        with pytest.raises(
            UserError,
            match=rf"^--ds_config: \S+: {key} means --.*, the flag says {flag}",
        ):
            read(entries, flag)

    def test_a_flag_that_says_the_same(self, read):
        flags = (
            "--batch_size=64",
            "--zero_stage=2",
            "--weight_decay=0.00001",
            "--schedule=warmup_lr",
        )
        assert read(LARGER, *flags)[0] == read(LARGER)[0]

    def test_a_rate_that_is_a_ratio_may_be_rounded(self, read):
        entries = schedule(
            "WarmupCosineLR",
            total_num_steps=9,
            warmup_min_ratio=0.1 + 0.2,
            cos_min_ratio=0.3,
        )
        assert read(entries, "--min_learning_rate=0.15")[0].min_learning_rate == 0.15

    def test_a_program_ends_with_one_line_and_exit_code_2(
        self, monkeypatch, capsys, tmp_path
    ):
        (tmp_path / "theirs.json").write_text("{}")
        monkeypatch.setattr(
            sys, "argv", ["train", f"--ds_config={tmp_path / 'theirs.json'}"]
        )
        with pytest.raises(SystemExit) as end:
            command_line.run(jaxnn.train.main, "", default_precision="fp32")
        err = capsys.readouterr().err
        assert end.value.code == 2
        assert err.startswith("error: --ds_config: ")
        assert err.count("\n") == 1
