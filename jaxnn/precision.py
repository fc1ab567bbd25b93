"""Number formats of training, and DeepSpeed's dynamic loss scaler as pure functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.experiment.config import Experiment


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


def cast(tree: Any, dtype: Any) -> Any:
    """Floating arrays of a pytree in `dtype`; integer arrays as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def at_least_float32(x: jax.Array) -> jax.Array:
    """float16 and bfloat16 as float32; float32 and float64 as they are."""
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


class LossScale(NamedTuple):
    """State of the scaler.

    Attributes:
      scale: () float32, multiplies the loss.
      clean_steps: () int32, steps since the last overflow, or since the start.
      hysteresis: () int32, overflows left before the scale halves.
    """

    scale: jax.Array
    clean_steps: jax.Array
    hysteresis: jax.Array


def initial_loss_scale(experiment: Experiment) -> LossScale:
    """2**initial_scale_power under fp16, 1 otherwise."""
    power = experiment.initial_scale_power if experiment.precision == "fp16" else 0
    return LossScale(jnp.float32(2.0**power), jnp.int32(0), jnp.int32(experiment.hysteresis))


def update_loss_scale(state: LossScale, overflow: jax.Array, experiment: Experiment) -> LossScale:
    """The scale after a step, by the rules of DeepSpeed's DynamicLossScaler (runtime/fp16/loss_scaler.py, 0.19.8).

    An overflow uses up one hysteresis, or halves the scale when one is left. The scale doubles
    on a clean step that follows a positive multiple of `loss_scale_window` clean ones, which also
    refills the hysteresis.

    Args:
      state: before the step.
      overflow: () bool, whether a gradient of the step was not finite.
      experiment: window, hysteresis and smallest scale.
    """
    halve = overflow & (state.hysteresis == 1)
    grow = ~overflow & (state.clean_steps > 0) & (state.clean_steps % experiment.loss_scale_window == 0)
    lower = jnp.maximum(state.scale / 2, jnp.float32(experiment.min_loss_scale))
    hysteresis = jnp.where(overflow & ~halve, state.hysteresis - 1, state.hysteresis)
    return LossScale(
        scale=jnp.where(halve, lower, jnp.where(grow, state.scale * 2, state.scale)),
        clean_steps=jnp.where(overflow, 0, state.clean_steps + 1),
        hysteresis=jnp.where(grow, experiment.hysteresis, hysteresis),
    )


def is_exhausted(state: LossScale, experiment: Experiment) -> jax.Array:
    """() bool: an overflow now would need a scale below the smallest; DeepSpeed raises there, and so do we."""
    return (state.hysteresis == 1) & (state.scale <= experiment.min_loss_scale)
