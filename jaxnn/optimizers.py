"""Optimizers as optax transformations with torch's semantics. Twin of
torch_ref/optimizers.py.

Each factory returns the *direction*: params <- params - learning_rate * direction. The
train step multiplies by the learning rate, read from the table that both stacks share.

Every transformation does the same four things, in the order of torch under DeepSpeed:

    g <- clip(g, clip_norm)
    g <- g + l1 sign(w) + l2 w
    d <- the optimizer's rule
    d <- d + weight_decay w                 (adamw)

The state is the rule's alone, with or without the other three.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnn.experiment.flags.config import Experiment
from jaxnn.precision import at_least_float32

DECAYED = ("kernel", "embedding", "input_kernel", "recurrent_kernel")
"""Last names of the parameters that l1, l2 and weight decay act on under
`--nodecay_all`."""

CLIP_EPS = 1e-6


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


def clip(grads: optax.Updates, max_norm: float) -> optax.Updates:
    """Gradients scaled to a global norm of at most max_norm: g / max(1, (|g| + 1e-6) /
    max_norm).

    DeepSpeed's formula (MISMATCHES D7), with its product by the reciprocal. The norm is
    over all tensors, in float32 or wider.
    """
    norm = jnp.sqrt(
        sum(jnp.sum(jnp.square(at_least_float32(g))) for g in jax.tree.leaves(grads))
    )
    factor = 1 / jnp.maximum((norm + CLIP_EPS) / max_norm, 1)
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads)


def sgd(experiment: Experiment) -> Optimizer:
    """The gradient itself (Robbins & Monro 1951)."""
    return Optimizer(
        _regularized(experiment, optax.identity()),
        lambda state: Moments({}, {}),
        lambda moments, count: optax.EmptyState(),
    )


def momentum(experiment: Experiment) -> Optimizer:
    """v <- mu v + g, from v = 0: the heavy ball (Polyak 1964), as torch and optax have
    it."""
    return _traced(experiment, optax.trace(experiment.momentum))


def nesterov(experiment: Experiment) -> Optimizer:
    """v <- mu v + g, then g + mu v: Nesterov's momentum at the shifted point (Sutskever
    et al. 2013), as in torch."""
    return _traced(experiment, optax.trace(experiment.momentum, nesterov=True))


def ema_momentum(experiment: Experiment) -> Optimizer:
    """v <- mu v + (1 - mu) g, from v = 0 and not corrected for it: the moving average
    (MISMATCHES O5)."""
    return Optimizer(
        _regularized(experiment, optax.ema(experiment.momentum, debias=False)),
        lambda state: Moments(state.ema, {}),
        lambda moments, count: optax.EmaState(count, moments.first),
    )


def adam(experiment: Experiment) -> Optimizer:
    """m_hat / (sqrt(v_hat) + eps), both bias-corrected, eps outside the root (Kingma &
    Ba 2015, Algorithm 1).

    DeepSpeed's FusedAdam takes its betas as float32: its 1 - 0.999 is 0.00099998713,
    which moves the second moment by 1.3e-5 of itself (csrc/includes/cpu_adam.h).
    `--nofused_adam` is torch's, in double.
    """
    return _adam(experiment, weight_decay=0)


def adamw(experiment: Experiment) -> Optimizer:
    """Adam's direction + weight_decay w: the decay does not pass through the moments
    (Loshchilov & Hutter 2019)."""
    return _adam(experiment, experiment.weight_decay)


def adam_settings(experiment: Experiment) -> tuple[float, float, float]:
    """Adam's two decays and eps, as `--fused_adam` rounds them."""
    rounded = np.float32 if experiment.fused_adam else float
    b1, b2, eps = (
        float(rounded(x))
        for x in (experiment.adam_b1, experiment.adam_b2, experiment.adam_eps)
    )
    return b1, b2, eps


def rmsprop(experiment: Experiment) -> Optimizer:
    """v <- a v + (1 - a) g^2, then g / (sqrt(v) + eps), from v = 0 (Hinton 2012;
    torch's form, MISMATCHES O1)."""
    rule = optax.scale_by_rms(
        experiment.rmsprop_decay, experiment.rmsprop_eps, eps_in_sqrt=False
    )
    return Optimizer(
        _regularized(experiment, rule),
        lambda state: Moments({}, state.nu),
        lambda moments, count: optax.ScaleByRmsState(moments.second),
    )


def adagrad(experiment: Experiment) -> Optimizer:
    """s <- s + g^2, then g / (sqrt(s) + eps), from s = adagrad_initial (Duchi et al.
    2011).

    torch's form: eps is outside the root, where optax's scale_by_rss has it inside
    (MISMATCHES O2).
    """

    def update(grads, state, params=None):
        del params
        total = jax.tree.map(
            lambda s, g: s + jnp.square(g), state.sum_of_squares, grads
        )
        direction = jax.tree.map(
            lambda s, g: g / (jnp.sqrt(s) + experiment.adagrad_eps), total, grads
        )
        return direction, optax.ScaleByRssState(total)

    rule = optax.GradientTransformation(
        optax.scale_by_rss(experiment.adagrad_initial).init, update
    )
    return Optimizer(
        _regularized(experiment, rule),
        lambda state: Moments({}, state.sum_of_squares),
        lambda moments, count: optax.ScaleByRssState(moments.second),
    )


def _traced(experiment: Experiment, rule: optax.GradientTransformation) -> Optimizer:
    return Optimizer(
        _regularized(experiment, rule),
        lambda state: Moments(state.trace, {}),
        lambda moments, count: optax.TraceState(moments.first),
    )


def _adam(experiment: Experiment, weight_decay: float) -> Optimizer:
    return Optimizer(
        _regularized(
            experiment, optax.scale_by_adam(*adam_settings(experiment)), weight_decay
        ),
        lambda state: Moments(state.mu, state.nu),
        lambda moments, count: optax.ScaleByAdamState(
            count, moments.first, moments.second
        ),
    )


def _regularized(
    experiment: Experiment, rule: optax.GradientTransformation, weight_decay: float = 0
) -> optax.GradientTransformation:
    """Clipping and penalties before the rule, decoupled decay after it; the rule's
    state unchanged.

    optax raises a float to an integer power, which a caller's strict dtype promotion
    would refuse.
    """

    def update(grads, state, params=None):
        if experiment.clip_norm:
            grads = clip(grads, experiment.clip_norm)
        grads = _with_penalty(experiment, grads, params, experiment.l1, experiment.l2)
        with jax.numpy_dtype_promotion("standard"):
            direction, state = rule.update(grads, state, params)
        return _with_penalty(experiment, direction, params, 0, weight_decay), state

    return optax.GradientTransformation(rule.init, update)


def _with_penalty(
    experiment: Experiment,
    updates: optax.Updates,
    params: optax.Params,
    l1: float,
    l2: float,
) -> optax.Updates:
    """u + l1 sign(w) + l2 w on the parameters that decay; sign(0) is 0."""

    def add(path, update, param):
        if not (experiment.decay_all or _last_name(path) in DECAYED):
            return update
        update = update + l1 * jnp.sign(param) if l1 else update
        return update + l2 * param if l2 else update

    return (
        jax.tree_util.tree_map_with_path(add, updates, params) if l1 or l2 else updates
    )


def _last_name(path: tuple) -> str:
    """ "kernel" of {"hidden_0": {"kernel": ...}} and of {"hidden_0/kernel": ...} alike."""
    return str(path[-1].key).rpartition("/")[-1]


OPTIMIZERS: dict[str, Callable[[Experiment], Optimizer]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "ema_momentum": ema_momentum,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
}
