"""Experiment -> the ds_config that trains it.

Every setting is written out, even where it is DeepSpeed's default: defaults differ
between releases (gradient_clipping is 1.0 since 0.19.3; MISMATCHES D14).
"""

from collections.abc import Callable
from typing import Any

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import passing

# For steps_per_print: more steps than any run has.
NEVER = 10**9


def ds_config(experiment: Experiment, world_size: int) -> dict[str, Any]:
    """Returns a ds_config without optimizer and scheduler blocks.

    It is for a caller of `deepspeed.initialize` who builds the optimizer and sets the
    learning rate of every step.

    Args:
      experiment: what to train.
      world_size: number of ranks; times the accumulation steps it divides the batch
        size.

    Raises:
      UserError: the batch size does not divide, the minimum loss scale is not whole,
        or `--ds_extra` is no such object.
    """
    extra = passing.from_flag(experiment.ds_extra)
    config = {
        **_batch(experiment, world_size),
        "gradient_clipping": experiment.clip_norm,
        "zero_optimization": {"stage": experiment.zero_stage},
        # Without it ZeRO refuses torch's SGD and RMSprop.
        "zero_allow_untested_optimizer": True,
        "fp16": _fp16(experiment),
        "bf16": {"enabled": experiment.precision == "bf16"},
        "steps_per_print": NEVER,
    }
    # Else offloading wants DeepSpeed to build the optimizer.
    if passing.is_offloaded(extra):
        config["zero_force_ds_cpu_optimizer"] = False
    return passing.merged(config, extra)


def file_config(
    experiment: Experiment, world_size: int, total_steps: int
) -> dict[str, Any]:
    """Returns `ds_config` with the optimizer and scheduler blocks that DeepSpeed has.

    It is for a user's own training script. A caller who sets the learning rate must not
    use it: DeepSpeed would build the scheduler and step it.

    Args:
      experiment: what to train.
      world_size: number of ranks.
      total_steps: steps of the run, at which its schedule ends.
    """
    blocks = {
        "optimizer": optimizer_block(experiment),
        "scheduler": scheduler_block(experiment, total_steps),
    }
    return {
        **ds_config(experiment, world_size),
        **{name: block for name, block in blocks.items() if block},
    }


def optimizer_block(experiment: Experiment) -> dict[str, Any] | None:
    """Returns the optimizer block, or None if DeepSpeed cannot build the optimizer."""
    # A block has one weight decay, for all parameters, and no L1.
    decays = experiment.l2 or experiment.weight_decay
    is_partial = decays and not experiment.decay_all
    has_both = experiment.optimizer == "adamw" and experiment.l2
    if experiment.l1 or is_partial or has_both:
        return None
    if experiment.optimizer not in OPTIMIZERS:
        return None

    kind, params = OPTIMIZERS[experiment.optimizer](experiment)
    is_adamw = experiment.optimizer == "adamw"
    decay = experiment.weight_decay if is_adamw else experiment.l2
    return {
        "type": kind,
        "params": {"lr": experiment.learning_rate, "weight_decay": decay, **params},
    }


def scheduler_block(experiment: Experiment, total_steps: int) -> dict[str, Any] | None:
    """Returns the scheduler block, or None if DeepSpeed does not have the schedule."""
    if experiment.schedule not in SCHEDULERS:
        return None
    total_steps = experiment.schedule_steps or total_steps
    warmup = {
        "warmup_num_steps": experiment.warmup_steps,
        "warmup_type": experiment.warmup_type,
    }
    kind, params = SCHEDULERS[experiment.schedule](experiment, total_steps)
    return {"type": kind, "params": warmup | params}


def _batch(experiment: Experiment, world_size: int) -> dict[str, int]:
    microbatches = world_size * experiment.accumulation_steps
    if experiment.batch_size % microbatches:
        raise UserError(
            f"--batch_size: {experiment.batch_size} is not divisible by {world_size} "
            f"ranks times --accumulation_steps={experiment.accumulation_steps}; change "
            "one of them"
        )
    return {
        "train_batch_size": experiment.batch_size,
        "train_micro_batch_size_per_gpu": experiment.batch_size // microbatches,
        "gradient_accumulation_steps": experiment.accumulation_steps,
    }


def _fp16(experiment: Experiment) -> dict[str, Any]:
    if not experiment.min_loss_scale.is_integer():
        raise UserError(
            "--min_loss_scale: DeepSpeed takes whole numbers, got "
            f"{experiment.min_loss_scale:g}"
        )
    return {
        "enabled": experiment.precision == "fp16",
        "auto_cast": False,
        # 0 is dynamic loss scaling, in the flag as in the file.
        "loss_scale": experiment.static_loss_scale,
        "initial_scale_power": experiment.initial_scale_power,
        "loss_scale_window": experiment.loss_scale_window,
        "hysteresis": experiment.hysteresis,
        "consecutive_hysteresis": experiment.consecutive_hysteresis,
        "min_loss_scale": int(experiment.min_loss_scale),
    }


# Optimizers: experiment -> type and the parameters besides lr and weight_decay.


def _sgd(
    experiment: Experiment, momentum: float = 0.0, nesterov: bool = False
) -> tuple[str, dict[str, Any]]:
    return "SGD", {"momentum": momentum, "dampening": 0.0, "nesterov": nesterov}


def _adam(experiment: Experiment) -> tuple[str, dict[str, Any]]:
    decoupled = experiment.optimizer == "adamw"
    params = {
        "betas": [experiment.adam_b1, experiment.adam_b2],
        "eps": experiment.adam_eps,
        "amsgrad": False,
        "adam_w_mode": decoupled,
        "torch_adam": not experiment.fused_adam,
    }
    # torch.optim.Adam has no such argument.
    if experiment.fused_adam:
        params["bias_correction"] = True
    return "AdamW" if decoupled else "Adam", params


def _rmsprop(experiment: Experiment) -> tuple[str, dict[str, Any]]:
    return "RMSprop", {
        "alpha": experiment.rmsprop_decay,
        "eps": experiment.rmsprop_eps,
        "momentum": 0.0,
        "centered": False,
    }


def _adagrad(experiment: Experiment) -> tuple[str, dict[str, Any]]:
    return "Adagrad", {
        "eps": experiment.adagrad_eps,
        "initial_accumulator_value": experiment.adagrad_initial,
        "lr_decay": 0.0,
    }


# Schedulers: experiment and number of steps -> type and the parameters besides those of
# the warm-up.


def _warmup_lr(experiment: Experiment, total_steps: int) -> tuple[str, dict[str, Any]]:
    return "WarmupLR", {
        "warmup_min_lr": experiment.min_learning_rate,
        "warmup_max_lr": experiment.learning_rate,
    }


def _warmup_decay_lr(
    experiment: Experiment, total_steps: int
) -> tuple[str, dict[str, Any]]:
    return "WarmupDecayLR", {
        "total_num_steps": total_steps,
        **_warmup_lr(experiment, total_steps)[1],
    }


def _warmup_cosine_lr(
    experiment: Experiment, total_steps: int
) -> tuple[str, dict[str, Any]]:
    end = experiment.final_learning_rate or experiment.min_learning_rate
    return "WarmupCosineLR", {
        "total_num_steps": total_steps,
        "warmup_min_ratio": experiment.min_learning_rate / experiment.learning_rate,
        "cos_min_ratio": end / experiment.learning_rate,
    }


OPTIMIZERS: dict[str, Callable[[Experiment], tuple[str, dict[str, Any]]]] = {
    "sgd": _sgd,
    "momentum": lambda experiment: _sgd(experiment, experiment.momentum),
    "nesterov": lambda experiment: _sgd(experiment, experiment.momentum, nesterov=True),
    "adam": _adam,
    "adamw": _adam,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
}

SCHEDULERS: dict[str, Callable[[Experiment, int], tuple[str, dict[str, Any]]]] = {
    "warmup_lr": _warmup_lr,
    "warmup_decay_lr": _warmup_decay_lr,
    "warmup_cosine_lr": _warmup_cosine_lr,
}
