"""Optimizers in float64, with the formulas of jaxnn/optimizers.py.

One update of the parameters w from their gradients g:

    g <- clip(g, clip_norm)
    g <- g + l1 sign(w) + l2 w
    d <- direction of the optimizer, which may update moments
    d <- d + weight_decay w                 (adamw)
    w <- w - learning_rate d                (w <- w - d if the rate is inside d)
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.flags.config import Experiment

Arrays = Mapping[str, np.ndarray]
Direction = Callable[
    [Experiment, np.ndarray, Arrays, int, float],
    tuple[np.ndarray, dict[str, np.ndarray]],
]
"""(experiment, gradient, moments, t, learning rate) -> (direction, new moments) for one
tensor; t is the number of the update, from 1."""

DECAYED = ("kernel", "embedding", "input_kernel", "recurrent_kernel")
"""Last path component of the parameters that l1, l2 and weight decay act on under
`--nodecay_all`."""

CLIP_EPS = 1e-6


class Rule(NamedTuple):
    """One optimizer.

    Attributes:
      moments: the moments it keeps, among "first" and "second".
      direction: update direction of one tensor.
      initial: initial value of every element of the moments.
      rate_inside: True if the direction has the learning rate in it already.
    """

    moments: tuple[str, ...]
    direction: Direction
    initial: Callable[[Experiment], float] = lambda experiment: 0.0
    rate_inside: bool = False


def update(
    experiment: Experiment,
    params: Arrays,
    grads: Arrays,
    moments: Arrays,
    updates: int,
    learning_rate: float,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Applies one update of the experiment's optimizer.

    Args:
      experiment: optimizer flags.
      params: parameters by name.
      grads: gradients by name.
      moments: "first/NAME" and "second/NAME", as far as the optimizer has them.
      updates: number of updates applied before.
      learning_rate: learning rate of this step.

    Returns:
      New parameters by name, and new moments by the same names as `moments`.
    """
    rule = OPTIMIZERS[experiment.optimizer]
    grads = clip(grads, experiment.clip_norm)
    updated = {}
    new_moments = {}

    for name, w in params.items():
        leaf = name.rpartition("/")[-1]
        decays = experiment.decay_all or leaf in DECAYED
        g = grads[name] + decays * (experiment.l1 * np.sign(w) + experiment.l2 * w)

        before = {kind: moments[f"{kind}/{name}"] for kind in rule.moments}
        direction, after = rule.direction(
            experiment, g, before, updates + 1, learning_rate
        )

        # Decoupled decay (Loshchilov & Hutter 2019). The flags allow it for adamw
        # alone, so that it is 0 elsewhere.
        direction = direction + decays * experiment.weight_decay * w
        updated[name] = w - (1 if rule.rate_inside else learning_rate) * direction
        new_moments |= {f"{kind}/{name}": array for kind, array in after.items()}

    return updated, new_moments


def initial_moments(experiment: Experiment, params: Arrays) -> dict[str, np.ndarray]:
    """Returns the moments before the first update, "first/NAME" and "second/NAME"."""
    rule = OPTIMIZERS[experiment.optimizer]
    return {
        f"{kind}/{name}": np.full(array.shape, rule.initial(experiment))
        for kind in rule.moments
        for name, array in params.items()
    }


def clip(grads: Arrays, max_norm: float) -> Arrays:
    """g / max(1, (|g| + 1e-6) / max_norm), |g| over all tensors; max_norm 0 disables.

    DeepSpeed's formula; torch's and optax's differ in eps (MISMATCHES D7).
    """
    if not max_norm:
        return grads
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))
    return {name: g / max((norm + CLIP_EPS) / max_norm, 1) for name, g in grads.items()}


# Directions: e is the experiment, g the gradient of one tensor, t the update's number,
# rate its learning rate.


def _sgd(e, g, moments, t, rate):
    """g."""
    return g, {}


def _momentum(e, g, moments, t, rate):
    """v <- mu v + g, then v."""
    v = e.momentum * moments["first"] + g
    return v, {"first": v}


def _nesterov(e, g, moments, t, rate):
    """v <- mu v + g, then g + mu v."""
    v = e.momentum * moments["first"] + g
    return g + e.momentum * v, {"first": v}


def _ema_momentum(e, g, moments, t, rate):
    """v <- mu v + (1 - mu) g, then v."""
    v = e.momentum * moments["first"] + (1 - e.momentum) * g
    return v, {"first": v}


def _sutskever_momentum(e, g, moments, t, rate):
    """v <- mu v - rate g, then -v, which is subtracted as it is."""
    v = e.momentum * moments["first"] - rate * g
    return -v, {"first": v}


def _adam(e, g, moments, t, rate):
    """m_hat / (sqrt(v_hat) + eps), both bias-corrected (Kingma & Ba 2015)."""
    # DeepSpeed's FusedAdam takes betas and eps as float32, which moves 1 - b2 by 1.3e-5
    # of itself (MISMATCHES D6; csrc/includes/cpu_adam.h).
    rounded = np.float32 if e.fused_adam else float
    b1, b2, eps = (float(rounded(x)) for x in (e.adam_b1, e.adam_b2, e.adam_eps))

    m = b1 * moments["first"] + (1 - b1) * g
    v = b2 * moments["second"] + (1 - b2) * g * g
    direction = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return direction, {"first": m, "second": v}


def _rmsprop(e, g, moments, t, rate):
    """v <- a v + (1 - a) g^2, then g / (sqrt(v) + eps)."""
    # eps outside the root, as in torch; optax has it inside (MISMATCHES O1).
    v = e.rmsprop_decay * moments["second"] + (1 - e.rmsprop_decay) * g * g
    return g / (np.sqrt(v) + e.rmsprop_eps), {"second": v}


def _adagrad(e, g, moments, t, rate):
    """s <- s + g^2, then g / (sqrt(s) + eps)."""
    # eps outside the root, as in torch; optax has it inside (MISMATCHES O2).
    s = moments["second"] + g * g
    return g / (np.sqrt(s) + e.adagrad_eps), {"second": s}


# To add an optimizer: one direction above and one row here. The tests require the same
# keys as jaxnn's.
OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule((), _sgd),
    "momentum": Rule(("first",), _momentum),
    "nesterov": Rule(("first",), _nesterov),
    "ema_momentum": Rule(("first",), _ema_momentum),
    "sutskever_momentum": Rule(("first",), _sutskever_momentum, rate_inside=True),
    "adam": Rule(("first", "second"), _adam),
    "adamw": Rule(("first", "second"), _adam),
    "rmsprop": Rule(("second",), _rmsprop),
    "adagrad": Rule(("second",), _adagrad, lambda e: e.adagrad_initial),
}
