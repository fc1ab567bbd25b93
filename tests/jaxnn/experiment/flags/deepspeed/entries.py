"""Entries of a ds_config: what the seed document has, more of them, and as little as
can be."""

from hypothesis import HealthCheck, settings

SEED = {
    "train_batch_size": 32,
    "train_micro_batch_size_per_gpu": 32,
    "gradient_accumulation_steps": 1,
    "optimizer": {"type": "Adam", "params": {"lr": 1e-3}},
    "fp16": {"enabled": True},
}
"""Of the seed document 000."""

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
fast = settings(
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""Of properties of entries that are drawn."""


def block(kind, **params):
    return {**SILENT, "optimizer": {"type": kind, "params": params}}


def schedule(kind, **params):
    return {**block("SGD", lr=0.5), "scheduler": {"type": kind, "params": params}}


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return {**SILENT, **value}
