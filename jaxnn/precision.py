"""Number formats of training, and DeepSpeed's loss scalers under ZeRO 1-3 as pure
functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.experiment.flags.config import Experiment


class Policy(NamedTuple):
    """Number formats.

    Attributes:
      compute: of the forward and backward pass.
      master: of the parameters that the optimizer updates, its moments and the loss.
    """

    compute: Any
    master: Any


POLICIES: dict[str, Policy] = {
    "fp64": Policy(jnp.float64, jnp.float64),
    "fp32": Policy(jnp.float32, jnp.float32),
    "bf16": Policy(jnp.bfloat16, jnp.float32),
    "fp16": Policy(jnp.float16, jnp.float32),
}
LARGEST_SCALE = 2.0**127
"""The largest power of two in float32."""


def cast(tree: Any, dtype: Any) -> Any:
    """Floating arrays of a pytree in `dtype`; integer arrays as they are."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def at_least_float32(x: jax.Array) -> jax.Array:
    """float16 and bfloat16 as float32; float32 and float64 as they are."""
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


class LossScale(NamedTuple):
    """State of the scaler; a static one keeps its first.

    Attributes:
      scale: () float32, multiplies the loss; infinite above float32's largest power of
        two, where every step overflows.
      clean_steps: () int32, steps since the last overflow, or since the start.
      hysteresis: () int32, overflows left before the scale halves.
    """

    scale: jax.Array
    clean_steps: jax.Array
    hysteresis: jax.Array


def initial_loss_scale(experiment: Experiment) -> LossScale:
    """Under fp16 `--static_loss_scale`, or 2**initial_scale_power where that is 0; 1
    otherwise."""
    fp16_scale = experiment.static_loss_scale or 2.0**experiment.initial_scale_power
    scale = fp16_scale if experiment.precision == "fp16" else 1
    return LossScale(jnp.float32(scale), jnp.int32(0), jnp.int32(experiment.hysteresis))


def update_loss_scale(
    state: LossScale, overflow: jax.Array, experiment: Experiment
) -> LossScale:
    """The scale after a step, by the rules of DeepSpeed's two scalers
    (runtime/fp16/loss_scaler.py, 0.19.8).

    An overflow uses up one hysteresis, or halves the scale when one is left. The scale
    doubles on a clean step that follows a positive multiple of `loss_scale_window`
    clean ones, which also refills the hysteresis; with `consecutive_hysteresis` every
    clean step refills it. A static scale stays, whatever overflows.

    Args:
      state: before the step.
      overflow: () bool, whether a gradient of the step was not finite.
      experiment: static scale, window, hysteresis and smallest scale.
    """
    if experiment.static_loss_scale:
        return state
    halve = overflow & (state.hysteresis == 1)
    grow = (
        ~overflow
        & (state.clean_steps > 0)
        & (state.clean_steps % experiment.loss_scale_window == 0)
    )
    refill = ~overflow if experiment.consecutive_hysteresis else grow
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


def is_exhausted(state: LossScale, experiment: Experiment) -> jax.Array:
    """() bool: an overflow now would need a scale below the smallest; DeepSpeed raises
    there, and so do we.

    Never true of a static scale: DeepSpeed skips for as long as it overflows.
    """
    return (
        (not experiment.static_loss_scale)
        & (state.hysteresis == 1)
        & (state.scale <= experiment.min_loss_scale)
    )
