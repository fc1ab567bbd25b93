"""Experiment -> the ds_config that trains it.

Everything that DeepSpeed would default is written out: its defaults differ between releases
(gradient clipping is 1.0 since 0.19.3; MISMATCHES D14).
"""

from typing import Any

from jaxnn.experiment.config import Experiment

NEVER = 10**9


def ds_config(experiment: Experiment, world_size: int) -> dict[str, Any]:
    """A ds_config for `deepspeed.initialize`; the optimizer is built by the caller.

    Args:
      experiment: what to train.
      world_size: number of ranks; divides the batch size.
    """
    return {
        "train_batch_size": experiment.batch_size,
        "train_micro_batch_size_per_gpu": experiment.batch_size // world_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": experiment.clip_norm,
        "zero_optimization": {"stage": experiment.zero_stage},
        "zero_allow_untested_optimizer": True,
        "fp16": {
            "enabled": experiment.precision == "fp16",
            "loss_scale": 0,  # dynamic
            "initial_scale_power": experiment.initial_scale_power,
            "loss_scale_window": experiment.loss_scale_window,
            "hysteresis": experiment.hysteresis,
            "consecutive_hysteresis": False,
            "min_loss_scale": experiment.min_loss_scale,
        },
        "bf16": {"enabled": experiment.precision == "bf16"},
        "steps_per_print": NEVER,
    }
