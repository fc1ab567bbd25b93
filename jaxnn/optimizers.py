"""Optimizers as optax transformations with torch's semantics. Twin of torch_ref/optimizers.py.

Each factory returns the *direction*: params <- params - learning_rate * direction. The
train step multiplies by the learning rate, read from the table that both stacks share.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax

from jaxnn.experiment.config import Experiment


class Moments(NamedTuple):
    """Running averages of an optimizer, each a pytree like the parameters.

    Attributes:
      first: of the gradient; empty if the optimizer keeps none.
      second: of its square; empty if the optimizer keeps none.
    """

    first: optax.Updates
    second: optax.Updates


class Optimizer(NamedTuple):
    """An optax transformation, and its moments read and replaced by name.

    Attributes:
      transform: gradients -> direction.
      moments: state -> Moments.
      with_moments: (moments, updates applied so far) -> state.
    """

    transform: optax.GradientTransformation
    moments: Callable[[optax.OptState], Moments]
    with_moments: Callable[[Moments, int], optax.OptState]


def sgd(experiment: Experiment) -> Optimizer:
    """The gradient itself (Robbins & Monro 1951)."""
    del experiment
    return Optimizer(optax.identity(), lambda state: Moments({}, {}), lambda moments, count: optax.EmptyState())


def adam(experiment: Experiment) -> Optimizer:
    """m_hat / (sqrt(v_hat) + eps), both bias-corrected, eps outside the root (Kingma & Ba 2015, Algorithm 1).

    DeepSpeed's FusedAdam takes its betas as float32: its 1 - 0.999 is 0.00099998713, which moves the
    second moment by 1.3e-5 of itself (csrc/includes/cpu_adam.h). `--nofused_adam` is torch's, in double.
    """
    rounded = np.float32 if experiment.fused_adam else float
    b1, b2, eps = (float(rounded(x)) for x in (experiment.adam_b1, experiment.adam_b2, experiment.adam_eps))
    transform = optax.scale_by_adam(b1, b2, eps)
    return Optimizer(
        _with_standard_promotion(transform),
        lambda state: Moments(state.mu, state.nu),
        lambda moments, count: optax.ScaleByAdamState(count, moments.first, moments.second),
    )


def _with_standard_promotion(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax raises a float to an integer power, which a caller's strict dtype promotion would refuse."""

    def update(*args):
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(*args)

    return optax.GradientTransformation(transform.init, update)


OPTIMIZERS: dict[str, Callable[[Experiment], Optimizer]] = {"sgd": sgd, "adam": adam}
