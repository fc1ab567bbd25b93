"""Faults in what follows from the flags alone: learning rates, loss scales, counters,
batches, carried state."""

from collections.abc import Callable

import numpy as np

from jaxnn.experiment.data import batches
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from torch_ref import engine as engines
from torch_ref import engine_readers
from torch_ref import train_step as train_steps
from torch_ref.faults.fault import EVENT, START, STEP, Fault, Scene
from torch_ref.optimizers import MOMENT_KEYS

STARTS_AT_ZERO = ("momentum", "nesterov", "ema_momentum", "adam", "adamw", "rmsprop")


def always(experiment: Experiment) -> bool:
    """Every experiment has it."""
    del experiment
    return True


def is_fp16(experiment: Experiment) -> bool:
    """Whether a loss scale acts."""
    return experiment.precision == "fp16"


def is_half(experiment: Experiment) -> bool:
    """Whether the forward pass is computed in another format than the masters'."""
    return experiment.precision in ("fp16", "bf16")


def _has_schedule(experiment: Experiment) -> bool:
    return experiment.schedule != "constant"


def _with_rate(place: Callable[[Scene], int]):
    """Plants a learning rate from another place of the table, which ends where the
    table ends."""

    def plant(scene: Scene) -> tuple[Patch, ...]:
        def make(plain):
            def train_step(
                experiment, engine, batch, step, learning_rate, *args, **kwargs
            ):
                table = scene.learning_rates
                learning_rate = float(table[np.clip(place(scene), 0, len(table) - 1)])
                return plain(
                    experiment, engine, batch, step, learning_rate, *args, **kwargs
                )

            return train_step

        return (Patch(train_steps, "train_step", make),)

    return plant


def _skipped_steps_counted(scene: Scene) -> tuple[Patch, ...]:
    return (Patch(engine_readers, "updates", lambda plain: lambda engine: scene.step),)


def _masters_not_rounded(scene: Scene) -> tuple[Patch, ...]:
    del scene

    def make(plain):
        def initialize(model, *args):
            drawn = {
                name: param.detach().clone() for name, param in model.named_parameters()
            }
            engine = plain(model, *args)
            _set_masters(engine, drawn)
            return engine

        return initialize

    return (Patch(engines, "initialize", make),)


def _weights_reloaded(scene: Scene) -> tuple[Patch, ...]:
    """Puts back masters and the copies that the forward pass reads."""
    _set_masters(scene.engine, scene.initial)
    for name, param in scene.engine.module.named_parameters():
        param.data.copy_(scene.initial[name])
    return ()


def _set_masters(engine, masters) -> None:
    from deepspeed.utils import safe_set_full_fp32_param

    for name, param in engine.module.named_parameters():
        safe_set_full_fp32_param(param, masters[name])


def _moments_reset(scene: Scene) -> tuple[Patch, ...]:
    for state in engine_readers.inner_optimizer(scene.engine).state.values():
        for key in MOMENT_KEYS[scene.experiment.optimizer].values():
            state[key].zero_()
    return ()


def _with_order(order: Callable):
    """Plants another order of the samples: order(plain) -> a function like
    `batches.epoch_order`."""
    return lambda scene: (Patch(batches, "epoch_order", order),)


def _scale_grows_early(scene: Scene) -> tuple[Patch, ...]:
    """The scaler is told that it has had a clean step more.

    It doubles the scale once the step is over, as others do, so that this step's
    gradients are not halved (MISMATCHES D3), which is another fault.
    """
    scaler = scene.engine.optimizer.loss_scaler
    doubled: list[float] = []

    def make_update_scale(plain):
        def update_scale(overflow):
            before = scaler.cur_scale
            scaler.last_overflow_iter -= 1
            plain(overflow)
            scaler.last_overflow_iter += not overflow  # an overflow has set it anew
            if scaler.cur_scale > before:
                doubled.append(scaler.cur_scale)
                scaler.cur_scale = before

        return update_scale

    def make_step(plain):
        def step(engine, number):
            skipped = plain(engine, number)
            scaler.cur_scale = doubled.pop() if doubled else scaler.cur_scale
            return skipped

        return step

    return Patch(scaler, "update_scale", make_update_scale), Patch(
        engines, "step", make_step
    )


FAULTS = [
    Fault(
        "learning_rate_early",
        STEP,
        "a --schedule",
        _has_schedule,
        _with_rate(lambda scene: engine_readers.updates(scene.engine) + 1),
    ),
    Fault(
        "learning_rate_late",
        STEP,
        "a --schedule",
        _has_schedule,
        _with_rate(lambda scene: engine_readers.updates(scene.engine) - 1),
    ),
    Fault(
        "schedule_counts_skipped",
        STEP,
        "--precision=fp16 and a --schedule",
        lambda e: is_fp16(e) and _has_schedule(e),
        _with_rate(lambda scene: scene.step),
    ),
    Fault(
        "skipped_steps_counted",
        STEP,
        "--precision=fp16",
        is_fp16,
        _skipped_steps_counted,
    ),
    Fault(
        "masters_not_rounded",
        START,
        "--precision=fp16 or bf16",
        is_half,
        _masters_not_rounded,
    ),
    Fault("weights_reloaded", EVENT, "nothing", always, _weights_reloaded),
    Fault(
        "moments_reset",
        EVENT,
        f"--optimizer={', '.join(STARTS_AT_ZERO)}",
        lambda e: e.optimizer in STARTS_AT_ZERO,
        _moments_reset,
    ),
    Fault(
        "not_shuffled",
        START,
        "nothing",
        always,
        _with_order(
            lambda plain: (
                lambda samples, seed, epoch: np.arange(samples, dtype=np.int32)
            )
        ),
    ),
    Fault(
        "same_order_every_epoch",
        START,
        "nothing",
        always,
        _with_order(lambda plain: lambda samples, seed, epoch: plain(samples, seed, 0)),
    ),
    Fault(
        "scale_grows_early",
        STEP,
        "--precision=fp16 and a dynamic loss scale",
        lambda e: is_fp16(e) and not e.static_loss_scale,
        _scale_grows_early,
    ),
]
