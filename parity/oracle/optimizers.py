"""Optimizers in float64, from the formulas of jaxnn/optimizers.py.

g <- clip(g, clip_norm)
g <- g + l1 sign(w) + l2 w
d <- the rule's direction, which may remember moments
d <- d + weight_decay w                 (adamw)
w <- w - learning_rate d
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.flags.config import Experiment

Arrays = Mapping[str, np.ndarray]
DECAYED = ("kernel", "embedding", "input_kernel", "recurrent_kernel")
CLIP_EPS = 1e-6


class Rule(NamedTuple):
    """One optimizer.

    Attributes:
      moments: the ones it remembers, among "first" and "second".
      direction: (experiment, gradient, moments, t) -> (direction, moments), of one
        tensor; t counts from 1.
    """

    moments: tuple[str, ...]
    direction: Callable[
        [Experiment, np.ndarray, Arrays, int], tuple[np.ndarray, dict[str, np.ndarray]]
    ]


def update(
    experiment: Experiment,
    params: Arrays,
    grads: Arrays,
    moments: Arrays,
    updates: int,
    learning_rate: float,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """One step of the experiment's optimizer.

    Args:
      experiment: its optimizer flags.
      params: by name.
      grads: by name.
      moments: "first/NAME" and "second/NAME", those that the optimizer has.
      updates: applied before.
      learning_rate: of this step.

    Returns:
      New parameters by name, new moments as they came.
    """
    rule, grads = OPTIMIZERS[experiment.optimizer], clip(grads, experiment.clip_norm)
    updated, new_moments = {}, {}
    for name, w in params.items():
        decays = experiment.decay_all or name.rpartition("/")[-1] in DECAYED
        g = grads[name] + decays * (experiment.l1 * np.sign(w) + experiment.l2 * w)
        before = {kind: moments[f"{kind}/{name}"] for kind in rule.moments}
        direction, after = rule.direction(experiment, g, before, updates + 1)
        direction = direction + decays * experiment.weight_decay * w
        updated[name] = w - learning_rate * direction
        new_moments |= {f"{kind}/{name}": array for kind, array in after.items()}
    return updated, new_moments


def initial_moments(experiment: Experiment, params: Arrays) -> dict[str, np.ndarray]:
    """Zeros, or AdaGrad's accumulator, by "first/NAME" and "second/NAME"."""
    value = experiment.adagrad_initial if experiment.optimizer == "adagrad" else 0.0
    return {
        f"{kind}/{name}": np.full(array.shape, value)
        for kind in OPTIMIZERS[experiment.optimizer].moments
        for name, array in params.items()
    }


def clip(grads: Arrays, max_norm: float) -> Arrays:
    """g / max(1, (|g| + 1e-6) / max_norm), the norm over all tensors; as they are for
    max_norm 0."""
    if not max_norm:
        return grads
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))
    return {name: g / max((norm + CLIP_EPS) / max_norm, 1) for name, g in grads.items()}


def _sgd(e, g, moments, t):
    """g."""
    return g, {}


def _momentum(e, g, moments, t):
    """v <- mu v + g, then v."""
    v = e.momentum * moments["first"] + g
    return v, {"first": v}


def _nesterov(e, g, moments, t):
    """v <- mu v + g, then g + mu v."""
    v = e.momentum * moments["first"] + g
    return g + e.momentum * v, {"first": v}


def _ema_momentum(e, g, moments, t):
    """v <- mu v + (1 - mu) g, then v."""
    v = e.momentum * moments["first"] + (1 - e.momentum) * g
    return v, {"first": v}


def _adam(e, g, moments, t):
    """m_hat / (sqrt(v_hat) + eps); DeepSpeed's FusedAdam takes betas and eps as
    float32."""
    rounded = np.float32 if e.fused_adam else float
    b1, b2, eps = (float(rounded(x)) for x in (e.adam_b1, e.adam_b2, e.adam_eps))
    m = b1 * moments["first"] + (1 - b1) * g
    v = b2 * moments["second"] + (1 - b2) * g * g
    return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps), {
        "first": m,
        "second": v,
    }


def _rmsprop(e, g, moments, t):
    """v <- a v + (1 - a) g^2, then g / (sqrt(v) + eps)."""
    v = e.rmsprop_decay * moments["second"] + (1 - e.rmsprop_decay) * g * g
    return g / (np.sqrt(v) + e.rmsprop_eps), {"second": v}


def _adagrad(e, g, moments, t):
    """s <- s + g^2, then g / (sqrt(s) + eps)."""
    s = moments["second"] + g * g
    return g / (np.sqrt(s) + e.adagrad_eps), {"second": s}


OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule((), _sgd),
    "momentum": Rule(("first",), _momentum),
    "nesterov": Rule(("first",), _nesterov),
    "ema_momentum": Rule(("first",), _ema_momentum),
    "adam": Rule(("first", "second"), _adam),
    "adamw": Rule(("first", "second"), _adam),
    "rmsprop": Rule(("second",), _rmsprop),
    "adagrad": Rule(("second",), _adagrad),
}
