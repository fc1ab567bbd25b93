"""Tests of jaxnn/experiment/flags/deepspeed/writing.py against DeepSpeed's parser."""

import json

import pytest
import torch

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import writing
from torch_ref.optimizers import OPTIMIZERS

FP16 = Experiment(
    precision="fp16",
    batch_size=48,
    accumulation_steps=3,
    clip_norm=0.5,
    zero_stage=3,
    static_loss_scale=128.0,
    initial_scale_power=12,
    loss_scale_window=7,
    hysteresis=3,
    consecutive_hysteresis=True,
    min_loss_scale=4.0,
)


class TestDsConfig:
    def test_is_what_deepspeed_reads(self, theirs):
        read = theirs(writing.ds_config(FP16, 2), world_size=2)
        assert (read.train_batch_size, read.train_micro_batch_size_per_gpu) == (48, 8)
        assert read.gradient_accumulation_steps == 3
        assert (read.gradient_clipping, read.zero_optimization_stage) == (0.5, 3)
        assert read.float16_config.model_dump() == {
            "enabled": True,
            "auto_cast": False,
            "loss_scale": 128.0,
            "initial_scale_power": 12,
            "loss_scale_window": 7,
            "hysteresis": 3,
            "consecutive_hysteresis": True,
            "min_loss_scale": 4,
            "fp16_master_weights_and_grads": False,
        }
        assert not read.bfloat16_config.enabled
        assert read.optimizer_name is None
        assert read.scheduler_name is None

    @pytest.mark.parametrize(
        ("precision", "fp16", "bf16"),
        [("fp32", False, False), ("bf16", False, True), ("fp16", True, False)],
    )
    def test_precision(self, theirs, precision, fp16, bf16):
        read = theirs(writing.ds_config(Experiment(precision=precision), 1))
        assert (read.float16_config.enabled, read.bfloat16_config.enabled) == (
            fp16,
            bf16,
        )

    def test_no_clipping_is_written_out(self, theirs):
        """DeepSpeed's default is 1.0 (MISMATCHES D14)."""
        assert theirs({"train_batch_size": 1}).gradient_clipping == 1.0
        assert theirs(writing.ds_config(Experiment(), 1)).gradient_clipping == 0.0

    def test_a_dynamic_scale_is_zero(self):
        assert (
            writing.ds_config(Experiment(precision="fp16"), 1)["fp16"]["loss_scale"]
            == 0
        )

    @pytest.mark.parametrize(
        ("changes", "world_size", "flag"),
        [
            (
                dict(batch_size=32, accumulation_steps=4),
                3,
                "--batch_size: 32 is not divisible by 3 ranks times --accumu",
            ),
            (
                dict(min_loss_scale=0.5),
                1,
                "--min_loss_scale: DeepSpeed takes whole numbers, got 0.5",
            ),
        ],
    )
    def test_refuses(self, changes, world_size, flag):
        with pytest.raises(UserError, match=f"^{flag}"):
            writing.ds_config(Experiment(**changes), world_size)


class TestFileConfig:
    def test_is_ds_config_with_two_blocks(self):
        experiment = FP16.replace(schedule="warmup_lr", warmup_steps=5)
        entries = writing.file_config(experiment, 1, 100)
        assert json.loads(json.dumps(entries)) == entries
        assert entries.pop("optimizer")["type"] == "Adam"
        assert entries.pop("scheduler")["type"] == "WarmupLR"
        assert entries == writing.ds_config(experiment, 1)

    def test_leaves_out_what_deepspeed_has_not(self):
        entries = writing.file_config(
            Experiment(optimizer="ema_momentum", schedule="one_cycle"), 1, 100
        )
        assert entries == writing.ds_config(Experiment(), 1)


class TestOptimizerBlock:
    @pytest.mark.parametrize(
        "changes",
        [
            dict(optimizer="sgd"),
            dict(optimizer="momentum", momentum=0.8, l2=1e-3),
            dict(optimizer="nesterov"),
            dict(optimizer="adam", l2=1e-2, adam_b1=0.8, adam_b2=0.99, adam_eps=1e-6),
            dict(optimizer="adam", fused_adam=False),
            dict(optimizer="adamw", weight_decay=1e-2),
            dict(optimizer="adamw", weight_decay=0.0, fused_adam=False),
            dict(optimizer="rmsprop", rmsprop_decay=0.9, l2=1e-3),
            dict(optimizer="adagrad", adagrad_initial=0.1),
        ],
        ids=str,
    )
    def test_builds_what_torch_ref_trains_with(self, build_optimizer, changes):
        experiment = Experiment(learning_rate=0.02, **changes)
        params = [torch.nn.Parameter(torch.ones(2, 2))]
        built = build_optimizer(writing.file_config(experiment, 1, 1), params)
        ours = OPTIMIZERS[experiment.optimizer](experiment, params)
        assert type(built) is type(ours)
        assert hyperparameters(built) == hyperparameters(ours)

    @pytest.mark.parametrize(
        "changes",
        [
            dict(optimizer="ema_momentum"),
            dict(optimizer="sutskever_momentum"),
            dict(l1=1e-3),
            dict(optimizer="adamw", l2=1e-3),
            dict(l2=1e-3, decay_all=False),
            dict(optimizer="adamw", weight_decay=1e-3, decay_all=False),
        ],
        ids=str,
    )
    def test_none_where_deepspeed_has_no_such_thing(self, changes):
        assert writing.optimizer_block(Experiment(**changes)) is None


class TestSchedulerBlock:
    @pytest.mark.parametrize(
        "schedule", ["constant", "cosine", "one_cycle", "linear_warmup", "step"]
    )
    def test_none_where_deepspeed_has_no_such_thing(self, schedule):
        assert writing.scheduler_block(Experiment(schedule=schedule), 10) is None

    def test_ends_with_the_run_or_where_told(self):
        experiment = Experiment(schedule="warmup_decay_lr", warmup_steps=2)
        assert (
            writing.scheduler_block(experiment, 10)["params"]["total_num_steps"] == 10
        )
        assert (
            writing.scheduler_block(experiment.replace(schedule_steps=20), 10)[
                "params"
            ]["total_num_steps"]
            == 20
        )


def hyperparameters(optimizer):
    group = {
        name: value
        for name, value in optimizer.param_groups[0].items()
        if name not in ("params", "penalized")
    }
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in group.items()
    }
