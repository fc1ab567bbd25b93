"""Entries of a ds_config: a tutorial's, a larger one, and the least there can be."""

from hypothesis import HealthCheck, settings

# What introductions to DeepSpeed give: FP16, Adam, no ZeRO block.
TUTORIAL = {
    "train_batch_size": 32,
    "train_micro_batch_size_per_gpu": 32,
    "gradient_accumulation_steps": 1,
    "optimizer": {"type": "Adam", "params": {"lr": 1e-3}},
    "fp16": {"enabled": True},
}

LARGER = {
    "train_micro_batch_size_per_gpu": 32,
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 1.0,
    "optimizer": {"type": "Adam", "params": {"lr": 2e-3, "weight_decay": 1e-5}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 100}},
    "zero_optimization": {
        "stage": 2,
        "overlap_comm": True,
        "offload_optimizer": {"device": "cpu"},
    },
    "bf16": {"enabled": True},
    "steps_per_print": 10,
}
SILENT = {"train_batch_size": 32}

# Settings of the property tests.
fast = settings(
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def block(kind, **params):
    return {**SILENT, "optimizer": {"type": kind, "params": params}}


def schedule(kind, **params):
    return {**block("SGD", lr=0.5), "scheduler": {"type": kind, "params": params}}


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return {**SILENT, **value}
