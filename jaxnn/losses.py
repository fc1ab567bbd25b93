"""Losses per example: outputs and targets [batch, ...] -> [batch].

Twin of torch_ref/losses.py.

The caller averages over the batch. All other axes of an example (several outputs, the
steps of a sequence) are averaged here. Outputs may be low precision; each loss is
computed in float32, or in float64 if the outputs are. At a kink the subgradient is that
of relu'(0) = 0.
"""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxnn.experiment.errors import UserError
from jaxnn.precision import at_least_float32
from jaxnn.settings import Setting, is_off

Loss = Callable[[Array, Array], Array]


def mse(outputs: Array, targets: Array) -> Array:
    """(y - t)^2, without a factor 1/2 (MISMATCHES L9).

    Args:
      outputs: [batch, ...] values y.
      targets: [batch, ...] values t.

    Raises:
      UserError: the shapes differ.
    """
    _check_shapes("mse", outputs, targets)
    outputs = at_least_float32(outputs)
    return _mean_per_example(jnp.square(outputs - targets.astype(outputs.dtype)))


def binary_cross_entropy(outputs: Array, targets: Array) -> Array:
    """-[t log s(z) + (1 - t) log s(-z)], s the logistic function.

    No logit makes it cancel.

    Args:
      outputs: [batch, ...] logits z.
      targets: [batch, ...] labels t, 0 or 1.

    Raises:
      UserError: the shapes differ.
    """
    _check_shapes("binary_cross_entropy", outputs, targets)
    logits = at_least_float32(outputs)
    losses = optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype))
    return _mean_per_example(losses)


def cross_entropy(
    outputs: Array, targets: Array, label_smoothing: Setting = 0.0
) -> Array:
    """sum_k q_k (log(sum_j exp(z_j)) - z_k), q = (1 - e) t + e / classes.

    For a certain class and e = 0 this is -log softmax(z)_t. The derivative by z_k is
    p_k sum(q) - q_k, p = softmax(z). Value and derivative keep the digits of a
    confident, right answer. Smoothing as in Szegedy et al. 2016 and
    torch.nn.CrossEntropyLoss.

    Args:
      outputs: [batch, ..., classes] logits z.
      targets: [batch, ...] integer classes from 0, or [batch, ..., classes]
        probabilities t.
      label_smoothing: share e of a label that is spread over all classes.

    Raises:
      UserError: the shapes do not fit.
    """
    logits = at_least_float32(outputs)
    if targets.ndim == logits.ndim:
        _check_shapes("cross_entropy", logits, targets)
        labels = targets.astype(logits.dtype)
        return _mean_per_example(_expected_surprise(logits, labels, label_smoothing))
    labels = _one_hot("cross_entropy", targets, logits)
    if not is_off(label_smoothing):
        return _mean_per_example(_expected_surprise(logits, labels, label_smoothing))
    return _mean_per_example(_surprise(logits, targets, labels))


def hinge(outputs: Array, targets: Array) -> Array:
    """max(0, 1 - (2t - 1) z), with derivative 0 where it is 0.

    The loss of the support vector machine (Cortes & Vapnik 1995).

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


def multiclass_hinge(outputs: Array, targets: Array) -> Array:
    """sum_{j != t} max(0, 1 - z_t + z_j) / classes: torch.nn.MultiMarginLoss.

    A term that is 0 has derivative 0. The margins of Weston & Watkins 1999.

    Args:
      outputs: [batch, ..., classes] scores z.
      targets: [batch, ...] integer classes t, from 0.

    Raises:
      UserError: the shapes do not fit.
    """
    scores = at_least_float32(outputs)
    labels = _one_hot("multiclass_hinge", targets, scores)
    gaps = scores - (labels * scores).sum(axis=-1, keepdims=True)
    # (1 - labels) removes the term of the class itself, which is max(0, 1).
    margins = (jax.nn.relu(1 + gaps) * (1 - labels)).sum(axis=-1)
    return _mean_per_example(margins / scores.shape[-1])


def perceptron(outputs: Array, targets: Array) -> Array:
    """(step(z) - t) z, step(0) = 1; for classes max_j z_j - z_t.

    Gradient descent on it, one example a step at rate 1, is Rosenblatt's rule (1958):
    w += (t - step(z)) x. The step is a constant to the derivative, which is therefore
    step(z) - t. The largest of equal scores is the first, with derivative 1 as step(0).

    Args:
      outputs: [batch, ...] scores z, or [batch, ..., classes] scores of classes.
      targets: [batch, ...] labels t, 0 or 1; or, with one axis less than `outputs`,
        integer classes t.

    Raises:
      UserError: the shapes do not fit.
    """
    scores = at_least_float32(outputs)
    if targets.ndim < scores.ndim:
        labels = _one_hot("perceptron", targets, scores)
        errors = _largest(scores).astype(scores.dtype) - labels
        return _mean_per_example((errors * scores).sum(axis=-1))
    _check_shapes("perceptron", scores, targets)
    errors = (scores >= 0).astype(scores.dtype) - targets.astype(scores.dtype)
    return _mean_per_example(errors * scores)


def weighted_mean(losses: Array, weights: Array) -> Array:
    """sum(w l) / sum(w): [batch] losses l, [batch] weights w -> ().

    A weight of 0 leaves an example out; not all may be 0.
    """
    chex.assert_rank([losses, weights], 1)
    chex.assert_equal_shape([losses, weights])
    weights = weights.astype(losses.dtype)
    return (weights * losses).sum() / weights.sum()


def build(name: str, label_smoothing: Setting = 0.0) -> Loss:
    """Returns a loss by name.

    Args:
      name: a key of `LOSSES`.
      label_smoothing: see `cross_entropy`; other losses ignore it.
    """
    if name == "cross_entropy":
        return functools.partial(cross_entropy, label_smoothing=label_smoothing)
    return LOSSES[name]


def _surprise(logits: Array, targets: Array, labels: Array) -> Array:
    """-log s(z_t - log sum_{j != t} exp(z_j)), s the logistic function.

    Args:
      logits: [..., classes] logits z.
      targets: [...] integer classes t.
      labels: [..., classes] the same, one-hot.

    Returns:
      [...] cross-entropies.
    """
    chex.assert_equal_shape([logits, labels])
    # The textbook form, log(sum_j exp(z_j)) - z_t, subtracts two large numbers where
    # the answer is confident and right.
    gaps = logits - jnp.take_along_axis(logits, targets[..., None], axis=-1)
    others = jnp.where(labels > 0, jnp.finfo(gaps.dtype).min, gaps)
    return -jax.nn.log_sigmoid(-jax.nn.logsumexp(others, axis=-1))


def _expected_surprise(logits: Array, labels: Array, label_smoothing: Setting) -> Array:
    """Cross-entropy of smoothed probabilities: two [..., classes] -> [...].

    With a the largest logit it is the sum of positive terms

      log1p(sum_{j != a} exp(z_j - z_a)) sum(q) + sum_{k != a} q_k (z_a - z_k)
    """
    chex.assert_equal_shape([logits, labels])
    labels = (1 - label_smoothing) * labels + label_smoothing / logits.shape[-1]
    top = _largest(logits)
    gaps = jnp.where(top, logits, 0).sum(axis=-1, keepdims=True) - logits
    others = jnp.where(top, 0, jnp.exp(-gaps)).sum(axis=-1)
    of_top = jnp.log1p(others) * labels.sum(axis=-1)
    return of_top + jnp.where(top, 0, labels * gaps).sum(axis=-1)


def _mean_per_example(losses: Array) -> Array:
    """Mean over all axes but the first, [batch, ...] -> [batch]."""
    chex.assert_type(losses, float)
    return losses.reshape(losses.shape[0], -1).mean(axis=-1)


def _largest(scores: Array) -> Array:
    """True at the first of the largest scores: [..., classes] -> [..., classes]."""
    return jax.nn.one_hot(scores.argmax(axis=-1), scores.shape[-1], dtype=bool)


def _one_hot(name: str, targets: Array, scores: Array) -> Array:
    """Integer classes [...] as [..., classes] in the dtype of the scores."""
    is_integer = jnp.issubdtype(targets.dtype, jnp.integer)
    if targets.shape != scores.shape[:-1] or not is_integer:
        raise UserError(
            f"--loss: {name} takes an integer class for each row of outputs "
            f"{tuple(scores.shape)}, got {targets.dtype} targets "
            f"{tuple(targets.shape)}; choose a loss that fits the data"
        )
    return jax.nn.one_hot(targets, scores.shape[-1], dtype=scores.dtype)


def _check_shapes(name: str, outputs: Array, targets: Array) -> None:
    # A user's data gets here, so this is a UserError: other shapes would broadcast.
    if outputs.shape != targets.shape:
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
