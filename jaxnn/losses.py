"""Losses per example: outputs and targets [batch, ...] -> [batch]. Twin of
torch_ref/losses.py.

The caller averages over the batch. Whatever axes an example has left are averaged here:
several outputs, the steps of a sequence. Outputs may be low precision; each loss is
computed in float32, or in float64 when the outputs are. At a kink the subgradient is
the one of relu'(0) = 0.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnn.experiment.errors import UserError
from jaxnn.precision import at_least_float32

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def mse(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """(y - t)^2; no factor 1/2.

    Args:
      outputs: [batch, ...] values y.
      targets: [batch, ...] values t.

    Raises:
      UserError: the shapes differ.
    """
    _check_shapes("mse", outputs, targets)
    outputs = at_least_float32(outputs)
    return _mean_per_example(jnp.square(outputs - targets.astype(outputs.dtype)))


def binary_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """-[t log s(z) + (1 - t) log s(-z)], s the logistic function: no cancellation at
    any logit.

    Args:
      outputs: [batch, ...] logits z.
      targets: [batch, ...] labels t, 0 or 1.

    Raises:
      UserError: the shapes differ.
    """
    _check_shapes("binary_cross_entropy", outputs, targets)
    logits = at_least_float32(outputs)
    return _mean_per_example(
        optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype))
    )


def cross_entropy(
    outputs: jax.Array, targets: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """sum_k q_k (log(sum_j exp(z_j)) - z_k), q = (1 - e) t + e / classes: -log
    softmax(z) of a certain class.

    Its derivative by z_k is p_k sum(q) - q_k, p = softmax(z). Value and derivative keep
    the digits of a confident, right answer. Smoothing as in Szegedy et al. 2016 and
    torch.nn.CrossEntropyLoss.

    Args:
      outputs: [batch, ..., classes] logits z.
      targets: [batch, ...] integer class from 0, or [batch, ..., classes] probabilities
        t.
      label_smoothing: share e of a label that is spread over all classes.

    Raises:
      UserError: the shapes do not fit.
    """
    logits = at_least_float32(outputs)
    if targets.ndim == logits.ndim:
        _check_shapes("cross_entropy", logits, targets)
        return _mean_per_example(
            _expected_surprise(logits, targets.astype(logits.dtype), label_smoothing)
        )
    labels = _one_hot("cross_entropy", targets, logits)
    if label_smoothing:
        return _mean_per_example(_expected_surprise(logits, labels, label_smoothing))
    return _mean_per_example(_surprise(logits, targets, labels))


def hinge(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """max(0, 1 - (2t - 1) z), with derivative 0 where it is 0: the support vector
    machine's (Cortes & Vapnik 1995).

    Args:
      outputs: [batch, ...] scores z.
      targets: [batch, ...] labels t, 0 or 1.

    Raises:
      UserError: the shapes differ.
    """
    _check_shapes("hinge", outputs, targets)
    scores = at_least_float32(outputs)
    signs = 2 * targets.astype(scores.dtype) - 1
    return _mean_per_example(jax.nn.relu(1 - signs * scores))


def multiclass_hinge(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """sum_{j != t} max(0, 1 - z_t + z_j) / classes, with derivative 0 where a term is
    0: torch.nn.MultiMarginLoss.

    The margins of Weston & Watkins 1999.

    Args:
      outputs: [batch, ..., classes] scores z.
      targets: [batch, ...] integer class t, from 0.

    Raises:
      UserError: the shapes do not fit.
    """
    scores = at_least_float32(outputs)
    labels = _one_hot("multiclass_hinge", targets, scores)
    gaps = scores - (labels * scores).sum(axis=-1, keepdims=True)
    return _mean_per_example(
        (jax.nn.relu(1 + gaps) * (1 - labels)).sum(axis=-1) / scores.shape[-1]
    )


def perceptron(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """(step(z) - t) z, step(0) = 1, whose derivative is step(z) - t; of classes max_j
    z_j - z_t.

    Gradient descent on it, one example a step at rate 1, is Rosenblatt's rule (1958): w
    += (t - step(z)) x. The step is a constant to the derivative. The largest of equal
    scores is the first, with derivative 1 as step(0).

    Args:
      outputs: [batch, ...] scores z; of classes [batch, ..., classes].
      targets: [batch, ...] labels t, 0 or 1; of classes [batch, ...] integer class t,
        one axis less than `outputs`.

    Raises:
      UserError: the shapes do not fit.
    """
    scores = at_least_float32(outputs)
    if targets.ndim < scores.ndim:
        errors = _largest(scores).astype(scores.dtype) - _one_hot(
            "perceptron", targets, scores
        )
        return _mean_per_example((errors * scores).sum(axis=-1))
    _check_shapes("perceptron", scores, targets)
    return _mean_per_example(
        ((scores >= 0).astype(scores.dtype) - targets.astype(scores.dtype)) * scores
    )


def weighted_mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(w l) / sum(w): [batch], [batch] -> (). Weights 0 leave examples out; not all
    may be 0."""
    weights = weights.astype(losses.dtype)
    return (weights * losses).sum() / weights.sum()


def build(name: str, label_smoothing: float = 0.0) -> Loss:
    """The loss of a name.

    Args:
      name: a key of `LOSSES`.
      label_smoothing: of cross_entropy.
    """
    smoothed = functools.partial(cross_entropy, label_smoothing=label_smoothing)
    return smoothed if name == "cross_entropy" else LOSSES[name]


def _surprise(logits: jax.Array, targets: jax.Array, labels: jax.Array) -> jax.Array:
    """-log s(z_t - log sum_{j != t} exp(z_j)), s the logistic function: [..., classes],
    one-hot `labels` -> [...]."""
    gaps = logits - jnp.take_along_axis(logits, targets[..., None], axis=-1)
    others = jnp.where(labels > 0, jnp.finfo(gaps.dtype).min, gaps)
    return -jax.nn.log_sigmoid(-jax.nn.logsumexp(others, axis=-1))


def _expected_surprise(
    logits: jax.Array, labels: jax.Array, label_smoothing: float
) -> jax.Array:
    """The cross entropy of probabilities: [..., classes] -> [...].

    With a the largest logit, log1p(sum_{j != a} exp(z_j - z_a)) sum(q) + sum_{k != a}
    q_k (z_a - z_k): positive terms.
    """
    labels = (1 - label_smoothing) * labels + label_smoothing / logits.shape[-1]
    top = _largest(logits)
    gaps = jnp.where(top, logits, 0).sum(axis=-1, keepdims=True) - logits
    others = jnp.where(top, 0, jnp.exp(-gaps)).sum(axis=-1)
    return jnp.log1p(others) * labels.sum(axis=-1) + jnp.where(
        top, 0, labels * gaps
    ).sum(axis=-1)


def _mean_per_example(losses: jax.Array) -> jax.Array:
    return losses.reshape(losses.shape[0], -1).mean(axis=-1)


def _largest(scores: jax.Array) -> jax.Array:
    """True at the largest of the last axis, the first of equals: [..., classes] bool."""
    return jax.nn.one_hot(scores.argmax(axis=-1), scores.shape[-1], dtype=bool)


def _one_hot(name: str, targets: jax.Array, scores: jax.Array) -> jax.Array:
    if targets.shape != scores.shape[:-1] or not jnp.issubdtype(
        targets.dtype, jnp.integer
    ):
        raise UserError(
            f"--loss: {name} takes an integer class for each row of outputs "
            f"{tuple(scores.shape)}, got {targets.dtype} targets "
            f"{tuple(targets.shape)}; choose a loss that fits the data"
        )
    return jax.nn.one_hot(targets, scores.shape[-1], dtype=scores.dtype)


def _check_shapes(name: str, outputs: jax.Array, targets: jax.Array) -> None:
    if outputs.shape != targets.shape:  # they would broadcast
        raise UserError(
            f"--loss: {name} takes targets of the shape of the outputs "
            f"{tuple(outputs.shape)}, got {tuple(targets.shape)}; choose a loss that "
            "fits the data"
        )


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "multiclass_hinge": multiclass_hinge,
    "perceptron": perceptron,
}
