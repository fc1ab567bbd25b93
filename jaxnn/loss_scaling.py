"""DeepSpeed's FP16 loss scalers under ZeRO 1 to 3 as pure functions.

torch_ref has no twin of this file: there the scaler is DeepSpeed's own
(runtime/fp16/loss_scaler.py, 0.19.8).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn.experiment.flags.config import Experiment

LARGEST_SCALE = 2.0**127
"""The largest power of two in float32."""


class LossScale(NamedTuple):
    """State of the loss scaler; a static scaler keeps its initial state.

    Attributes:
      scale: () float32, factor on the loss; infinite once it has doubled past
        `LARGEST_SCALE`, where every step overflows.
      clean_steps: () int32, steps since the last overflow, or since the start.
      hysteresis: () int32, overflows left before the scale halves.
    """

    scale: Array
    clean_steps: Array
    hysteresis: Array


def initial_loss_scale(experiment: Experiment) -> LossScale:
    """Returns the scale before the first step; 1 unless the precision is fp16.

    Under fp16 it is `--static_loss_scale`, or 2**initial_scale_power where that is 0.
    """
    fp16_scale = experiment.static_loss_scale or 2.0**experiment.initial_scale_power
    scale = fp16_scale if experiment.precision == "fp16" else 1
    return LossScale(jnp.float32(scale), jnp.int32(0), jnp.int32(experiment.hysteresis))


def update_loss_scale(
    state: LossScale, overflow: Array | np.bool_, experiment: Experiment
) -> LossScale:
    """Returns the scale after a step, by the rules of DeepSpeed's two scalers.

    An overflow uses up one hysteresis, or halves the scale when one is left. The scale
    doubles on a clean step that follows a positive multiple of `loss_scale_window`
    clean ones, which also refills the hysteresis; with `consecutive_hysteresis` every
    clean step refills it. A static scale never changes.

    Args:
      state: state before the step.
      overflow: () bool, True if a gradient of the step is not finite.
      experiment: static scale, window, hysteresis and smallest scale.
    """
    if experiment.static_loss_scale:
        return state

    halve = overflow & (state.hysteresis == 1)
    # 0 is a multiple of every window: without `clean_steps > 0` the first clean step
    # after the start or an overflow would double the scale. As in DeepSpeed, and unlike
    # GradScaler, the scale doubles one step after the window is full (MISMATCHES D4).
    grow = (
        ~overflow
        & (state.clean_steps > 0)
        & (state.clean_steps % experiment.loss_scale_window == 0)
    )
    refill = ~overflow if experiment.consecutive_hysteresis else grow

    # DeepSpeed's scale is a Python float, which halves from 2**128 back into float32;
    # here 2**128 is infinity, and infinity halved stays infinity.
    half = jnp.where(
        jnp.isinf(state.scale), jnp.float32(LARGEST_SCALE), state.scale / 2
    )
    lower = jnp.maximum(half, jnp.float32(experiment.min_loss_scale))
    hysteresis = jnp.where(overflow & ~halve, state.hysteresis - 1, state.hysteresis)
    return LossScale(
        scale=jnp.where(halve, lower, jnp.where(grow, state.scale * 2, state.scale)),
        clean_steps=jnp.where(overflow, 0, state.clean_steps + 1),
        hysteresis=jnp.where(refill, experiment.hysteresis, hysteresis),
    )


def is_exhausted(state: LossScale, experiment: Experiment) -> Array:
    """() bool, True if another overflow would need a scale below the smallest.

    DeepSpeed raises there, and so does jaxnn. Never True of a static scale: DeepSpeed
    skips steps for as long as it overflows.
    """
    return (
        (not experiment.static_loss_scale)
        & (state.hysteresis == 1)
        & (state.scale <= experiment.min_loss_scale)
    )
