"""Optimizers by name, with torch's semantics. Twin of torch_ref/optimizers.py.

A factory returns an optax transformation from gradients g to a *direction* d. The train
step applies it, w <- w - learning_rate d, with a rate from the table that both stacks
share. Every transformation does the same four things, in the order of torch under
DeepSpeed:

    g <- clip(g, clip_norm)
    g <- g + l1 sign(w) + l2 w
    d <- the optimizer's rule
    d <- d + weight_decay w                 (adamw)

`sutskever_momentum` alone has the rate inside d: w <- w - d. The state is that of the
rule alone, with or without the other three.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxnn.experiment.flags.config import Experiment
from jaxnn.precision import at_least_float32
from jaxnn.settings import Setting, as_float32, is_off

DECAYED = ("kernel", "embedding", "input_kernel", "recurrent_kernel")
"""Last names of the parameters that decay under `--nodecay_all`."""

CLIP_EPS = 1e-6
"""DeepSpeed's constant beside the norm that clipping divides by."""


class Moments(NamedTuple):
    """Running averages of an optimizer, each a pytree like the parameters.

    Attributes:
      first: averages of the gradient; empty if the optimizer keeps none.
      second: averages of its square; empty if the optimizer keeps none.
    """

    first: optax.Updates
    second: optax.Updates


class Optimizer(NamedTuple):
    """An optax transformation whose moments can be read and replaced by name.

    Attributes:
      transform: gradients -> direction.
      moments: state -> Moments.
      with_moments: (moments, number of updates applied) -> state.
      rate_inside: True if the direction has the learning rate in it, w <- w - d.
    """

    transform: optax.GradientTransformationExtraArgs
    moments: Callable[[optax.OptState], Moments]
    with_moments: Callable[[Moments, int], optax.OptState]
    rate_inside: bool = False


def sgd(experiment: Experiment) -> Optimizer:
    """The gradient itself (Robbins & Monro 1951)."""
    return Optimizer(
        regularized(experiment, optax.identity()),
        lambda state: Moments({}, {}),
        lambda moments, count: optax.EmptyState(),
    )


def momentum(experiment: Experiment) -> Optimizer:
    """v <- mu v + g, from v = 0: the heavy ball (Polyak 1964)."""
    return _traced(experiment, optax.trace(experiment.momentum))


def nesterov(experiment: Experiment) -> Optimizer:
    """v <- mu v + g, then g + mu v: Nesterov's momentum at the shifted point.

    Sutskever et al. 2013, in torch's form.
    """
    return _traced(experiment, optax.trace(experiment.momentum, nesterov=True))


def ema_momentum(experiment: Experiment) -> Optimizer:
    """v <- mu v + (1 - mu) g, from v = 0: the moving average (MISMATCHES O5).

    It is not corrected for its start at 0.
    """
    return Optimizer(
        regularized(experiment, optax.ema(experiment.momentum, debias=False)),
        lambda state: Moments(state.ema, {}),
        lambda moments, count: optax.EmaState(count, moments.first),
    )


def sutskever_momentum(experiment: Experiment) -> Optimizer:
    """v <- mu v - lr g, from v = 0, then w <- w + v: the rate inside the velocity.

    Sutskever et al. 2013, equations 1 and 2. As `momentum` at a constant rate; where it
    changes, each gradient keeps the rate of its own step (MISMATCHES O6).
    """
    plain = optax.trace(experiment.momentum)

    def update(updates, state, params=None, **extra):
        del params
        rate = extra["learning_rate"]
        velocity = jax.tree.map(
            lambda v, g: experiment.momentum * v - rate.astype(g.dtype) * g,
            state.trace,
            updates,
        )
        return jax.tree.map(jnp.negative, velocity), optax.TraceState(velocity)

    rule = optax.GradientTransformationExtraArgs(plain.init, update)
    return _traced(experiment, rule)._replace(rate_inside=True)


def adam(experiment: Experiment) -> Optimizer:
    """m_hat / (sqrt(v_hat) + eps), both bias-corrected, eps outside the root.

    Kingma & Ba 2015, Algorithm 1. `--fused_adam` is DeepSpeed's FusedAdam without its
    AdamW mode, `--nofused_adam` torch's Adam.
    """
    return _adam(experiment, weight_decay=0)


def adamw(experiment: Experiment) -> Optimizer:
    """Adam's direction + weight_decay w (Loshchilov & Hutter 2019).

    The decay does not pass through the moments. DeepSpeed's FusedAdam, which the "Adam"
    of a ds_config means (MISMATCHES D6), or torch's AdamW under `--nofused_adam`.
    """
    return _adam(experiment, experiment.weight_decay)


def adam_settings(experiment: Experiment) -> tuple[Setting, Setting, Setting]:
    """Returns Adam's two decay rates and eps as the optimizer computes with them."""
    # FusedAdam takes them as float32 (csrc/includes/cpu_adam.h), torch as double. The
    # float32 1 - 0.999 is 0.00099998713, which moves the second moment by 1.3e-5 of
    # itself.
    b1, b2, eps = experiment.adam_b1, experiment.adam_b2, experiment.adam_eps
    if experiment.fused_adam:
        return as_float32(b1), as_float32(b2), as_float32(eps)
    return b1, b2, eps


def rmsprop(experiment: Experiment) -> Optimizer:
    """v <- a v + (1 - a) g^2, then g / (sqrt(v) + eps), from v = 0 (Hinton 2012)."""
    # optax's default has eps inside the root, and a = 0.9 (MISMATCHES O1).
    rule = optax.scale_by_rms(
        experiment.rmsprop_decay, experiment.rmsprop_eps, eps_in_sqrt=False
    )
    return Optimizer(
        regularized(experiment, rule),
        lambda state: Moments({}, state.nu),
        lambda moments, count: optax.ScaleByRmsState(moments.second),
    )


def adagrad(experiment: Experiment) -> Optimizer:
    """s <- s + g^2, then g / (sqrt(s) + eps), from s = adagrad_initial.

    Duchi et al. 2011.
    """
    plain = optax.scale_by_rss(experiment.adagrad_initial)

    # optax's own update has eps inside the root (MISMATCHES O2).
    def update(updates, state, params=None):
        del params
        total = jax.tree.map(
            lambda s, g: s + jnp.square(g), state.sum_of_squares, updates
        )
        direction = jax.tree.map(
            lambda s, g: g / (jnp.sqrt(s) + experiment.adagrad_eps), total, updates
        )
        return direction, optax.ScaleByRssState(total)

    rule = optax.GradientTransformation(plain.init, update)
    return Optimizer(
        regularized(experiment, rule),
        lambda state: Moments({}, state.sum_of_squares),
        lambda moments, count: optax.ScaleByRssState(moments.second),
    )


def regularized(
    experiment: Experiment,
    rule: optax.GradientTransformation,
    weight_decay: Setting = 0,
) -> optax.GradientTransformationExtraArgs:
    """Adds clipping, l1, l2 and decoupled decay to a rule; its state is unchanged.

    The transformation passes `learning_rate=` on to a rule that asks for it.

    Args:
      experiment: clipping norm, l1, l2, and which parameters decay.
      rule: gradients, clipped and with the penalties -> direction.
      weight_decay: decoupled decay, added to the direction.
    """

    rule = optax.with_extra_args_support(rule)

    def update(updates, state, params=None, **extra):
        like = updates if params is None else params
        if not is_off(experiment.clip_norm):
            updates = clip(updates, experiment.clip_norm)
        updates = _with_penalty(
            experiment, updates, params, experiment.l1, experiment.l2
        )

        # optax raises a float to an integer power, which a caller's strict dtype
        # promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            direction, state = rule.update(updates, state, params, **extra)
        direction = _with_penalty(experiment, direction, params, 0, weight_decay)
        chex.assert_trees_all_equal_shapes_and_dtypes(direction, like)
        return direction, state

    return optax.GradientTransformationExtraArgs(rule.init, update)


def is_decayed(experiment: Experiment, path: tuple) -> bool:
    """Returns True if l1, l2 and weight decay act on a parameter.

    Args:
      experiment: says if all parameters decay.
      path: key path of the parameter in its pytree; nested dicts and flat names with
        slashes are read alike.
    """
    last_name = str(path[-1].key).rpartition("/")[-1]
    return experiment.decay_all or last_name in DECAYED


def clip(grads: optax.Updates, max_norm: Setting) -> optax.Updates:
    """g / max(1, (|g| + 1e-6) / max_norm), |g| the norm over all tensors.

    DeepSpeed's formula (MISMATCHES D7). The norm is taken in float32 or wider.
    """
    squares = [
        jnp.sum(jnp.square(at_least_float32(grad))) for grad in jax.tree.leaves(grads)
    ]
    norm = jnp.sqrt(sum(squares))
    # DeepSpeed multiplies by the reciprocal, which rounds once more than dividing.
    factor = 1 / jnp.maximum((norm + CLIP_EPS) / max_norm, 1)
    return jax.tree.map(lambda grad: grad * factor.astype(grad.dtype), grads)


def _traced(experiment: Experiment, rule: optax.GradientTransformation) -> Optimizer:
    return Optimizer(
        regularized(experiment, rule),
        lambda state: Moments(state.trace, {}),
        lambda moments, count: optax.TraceState(moments.first),
    )


def _adam(experiment: Experiment, weight_decay: Setting) -> Optimizer:
    b1, b2, eps = adam_settings(experiment)
    return Optimizer(
        regularized(experiment, optax.scale_by_adam(b1, b2, eps), weight_decay),
        lambda state: Moments(state.mu, state.nu),
        lambda moments, count: optax.ScaleByAdamState(
            count, moments.first, moments.second
        ),
    )


def _with_penalty(
    experiment: Experiment,
    updates: optax.Updates,
    params: optax.Params | None,
    l1: Setting,
    l2: Setting,
) -> optax.Updates:
    """u + l1 sign(w) + l2 w on the parameters that decay; sign(0) is 0."""
    if is_off(l1) and is_off(l2):
        return updates

    def add(path, update, param):
        if not is_decayed(experiment, path):
            return update
        if not is_off(l1):
            update = update + l1 * jnp.sign(param)
        return update if is_off(l2) else update + l2 * param

    return jax.tree_util.tree_map_with_path(add, updates, params)


OPTIMIZERS: dict[str, Callable[[Experiment], Optimizer]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "ema_momentum": ema_momentum,
    "sutskever_momentum": sutskever_momentum,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
}
