"""Faults in what follows from the flags alone, and in the state between steps.

Learning rates, loss scales, counters, batches; masters and moments.
"""

from collections.abc import Callable

import numpy as np

from jaxnn.experiment.catalogue import OPTIMIZERS
from jaxnn.experiment.data import batches
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import (
    always,
    has_moments_from_zero,
    has_schedule,
    is_fp16,
    is_half,
    scales_dynamically,
)
from torch_ref import engine as engines
from torch_ref import engine_readers
from torch_ref import train_step as train_steps
from torch_ref.faults.fault import EVENT, START, STEP, Fault, Scene
from torch_ref.optimizers import MOMENT_KEYS


def _with_rate(place: Callable[[Scene], int]):
    """Plants a learning rate from another place of the table.

    Args:
      place: scene -> index, which is clipped to the table.
    """

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
            # DeepSpeed rounds the model in place, and its masters with it
            # (MISMATCHES D5).
            drawn = {
                name: param.detach().clone() for name, param in model.named_parameters()
            }
            engine = plain(model, *args)
            _set_masters(engine, drawn)
            return engine

        return initialize

    return (Patch(engines, "initialize", make),)


def _weights_reloaded(scene: Scene) -> tuple[Patch, ...]:
    """Puts the initial masters back, and the copies that the forward pass reads."""
    _set_masters(scene.engine, scene.initial)
    for name, param in scene.engine.module.named_parameters():
        param.data.copy_(scene.initial[name])
    return ()


def _set_masters(engine, masters) -> None:
    # Importing DeepSpeed takes seconds.
    from deepspeed.utils import safe_set_full_fp32_param

    for name, param in engine.module.named_parameters():
        safe_set_full_fp32_param(param, masters[name])


def _moments_reset(scene: Scene) -> tuple[Patch, ...]:
    keys = MOMENT_KEYS[scene.experiment.optimizer].values()
    for state in engine_readers.inner_optimizer(scene.engine).state.values():
        for key in keys:
            state[key].zero_()
    return ()


def _with_order(order: Callable):
    """Plants another order of the samples.

    Args:
      order: plain `batches.epoch_order` -> the one in its place.
    """
    return lambda scene: (Patch(batches, "epoch_order", order),)


def _not_shuffled(plain):
    return lambda samples, seed, epoch: np.arange(samples, dtype=np.int32)


def _first_order(plain):
    return lambda samples, seed, epoch: plain(samples, seed, 0)


def _scale_grows_early(scene: Scene) -> tuple[Patch, ...]:
    """Plants a scaler that counts one clean step more than there was."""
    scaler = scene.engine.optimizer.loss_scaler
    doubled: list[float] = []

    def make_update_scale(plain):
        def update_scale(overflow):
            before = scaler.cur_scale
            scaler.last_overflow_iter -= 1
            plain(overflow)
            # An overflow has set it anew.
            scaler.last_overflow_iter += not overflow
            if scaler.cur_scale > before:
                doubled.append(scaler.cur_scale)
                scaler.cur_scale = before

        return update_scale

    # The scale doubles once the step is over, as in other libraries, so that this
    # step's gradients are not halved: that is another fault (MISMATCHES D3).
    def make_step(plain):
        def step(engine, number):
            skipped = plain(engine, number)
            scaler.cur_scale = doubled.pop() if doubled else scaler.cur_scale
            return skipped

        return step

    return (
        Patch(scaler, "update_scale", make_update_scale),
        Patch(engines, "step", make_step),
    )


_FROM_ZERO = [
    name for name, facts in OPTIMIZERS.items() if facts.moments and not facts.initial
]

FAULTS = [
    # Learning rates and counters.
    Fault(
        "learning_rate_early",
        STEP,
        "a --schedule",
        has_schedule,
        _with_rate(lambda scene: engine_readers.updates(scene.engine) + 1),
    ),
    Fault(
        "learning_rate_late",
        STEP,
        "a --schedule",
        has_schedule,
        _with_rate(lambda scene: engine_readers.updates(scene.engine) - 1),
    ),
    Fault(
        "schedule_counts_skipped",
        STEP,
        "--precision=fp16 and a --schedule",
        lambda e: is_fp16(e) and has_schedule(e),
        _with_rate(lambda scene: scene.step),
    ),
    Fault(
        "skipped_steps_counted",
        STEP,
        "--precision=fp16",
        is_fp16,
        _skipped_steps_counted,
    ),
    # Masters and moments.
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
        f"--optimizer={', '.join(_FROM_ZERO)}",
        has_moments_from_zero,
        _moments_reset,
    ),
    # Order of the samples.
    Fault(
        "not_shuffled",
        START,
        "nothing",
        always,
        _with_order(_not_shuffled),
    ),
    Fault(
        "same_order_every_epoch",
        START,
        "nothing",
        always,
        _with_order(_first_order),
    ),
    # Loss scale.
    Fault(
        "scale_grows_early",
        STEP,
        "--precision=fp16 and a dynamic loss scale",
        scales_dynamically,
        _scale_grows_early,
    ),
]
