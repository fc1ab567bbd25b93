"""Losses per example: outputs and targets [batch, ...] -> [batch]. Twin of
jaxnn/losses.py.

The caller averages over the batch. Whatever axes an example has left are averaged here:
several outputs, the steps of a sequence. Outputs may be low precision; each loss is
computed in float32, or in float64 when the outputs are. At a kink the subgradient is
the one of relu'(0) = 0.
"""

import functools
from collections.abc import Callable

import torch
from torch.nn import functional

from jaxnn.experiment.errors import UserError
from torch_ref.precision import at_least_float32

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(y - t)^2; no factor 1/2.

    Args:
      outputs: [batch, ...] values y.
      targets: [batch, ...] values t.

    Raises:
      UserError: the shapes differ.
    """
    _check_shapes("mse", outputs, targets)
    outputs = at_least_float32(outputs)
    return _mean_per_example(torch.square(outputs - targets.to(outputs.dtype)))


def binary_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-[t log s(z) + (1 - t) log s(-z)], s the logistic function: no cancellation at
    any logit.

    torch's own binary_cross_entropy_with_logits computes (1 - t) z - log s(z) and its
    gradient s(z) - t, which lose the digits of a confident, right answer: ten noise
    units on breast cancer.

    Args:
      outputs: [batch, ...] logits z.
      targets: [batch, ...] labels t, 0 or 1.

    Raises:
      UserError: the shapes differ.
    """
    _check_shapes("binary_cross_entropy", outputs, targets)
    logits = at_least_float32(outputs)
    targets = targets.to(logits.dtype)
    losses = -targets * functional.logsigmoid(logits) - (
        1 - targets
    ) * functional.logsigmoid(-logits)
    return _mean_per_example(losses)


def cross_entropy(
    outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """sum_k q_k (log(sum_j exp(z_j)) - z_k), q = (1 - e) t + e / classes: -log
    softmax(z) of a certain class.

    Its derivative by z_k is p_k sum(q) - q_k, p = softmax(z). Value and derivative keep
    the digits of a confident, right answer. Smoothing as in Szegedy et al. 2016 and
    torch.nn.CrossEntropyLoss.

    torch's own cross_entropy subtracts large terms from each other and p_k from q_k,
    and loses those digits.

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
            _expected_surprise(logits, targets.to(logits.dtype), label_smoothing)
        )
    labels = _one_hot("cross_entropy", targets, logits)
    if label_smoothing:
        return _mean_per_example(_expected_surprise(logits, labels, label_smoothing))
    return _mean_per_example(_surprise(logits, targets, labels))


def hinge(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
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
    signs = 2 * targets.to(scores.dtype) - 1
    return _mean_per_example(torch.relu(1 - signs * scores))


def multiclass_hinge(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
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
    gaps = scores - (labels * scores).sum(dim=-1, keepdim=True)
    return _mean_per_example(
        (torch.relu(1 + gaps) * (1 - labels)).sum(dim=-1) / scores.shape[-1]
    )


def perceptron(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
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
        errors = _largest(scores).to(scores.dtype) - _one_hot(
            "perceptron", targets, scores
        )
        return _mean_per_example((errors * scores).sum(dim=-1))
    _check_shapes("perceptron", scores, targets)
    return _mean_per_example(
        ((scores >= 0).to(scores.dtype) - targets.to(scores.dtype)) * scores
    )


def weighted_mean(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum(w l) / sum(w): [batch], [batch] -> (). Weights 0 leave examples out; not all
    may be 0."""
    weights = weights.to(losses.dtype)
    return (weights * losses).sum() / weights.sum()


def build(name: str, label_smoothing: float = 0.0) -> Loss:
    """The loss of a name.

    Args:
      name: a key of `LOSSES`.
      label_smoothing: of cross_entropy.
    """
    smoothed = functools.partial(cross_entropy, label_smoothing=label_smoothing)
    return smoothed if name == "cross_entropy" else LOSSES[name]


def _surprise(
    logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """-log s(z_t - log sum_{j != t} exp(z_j)), s the logistic function: [..., classes],
    one-hot `labels` -> [...]."""
    gaps = logits - torch.gather(logits, -1, targets[..., None].long())
    others = torch.where(labels > 0, torch.finfo(gaps.dtype).min, gaps)
    largest = others.detach().amax(dim=-1, keepdim=True)
    # torch.logsumexp's derivative, exp(x - result), would carry the rounding of the
    # result.
    return -functional.logsigmoid(
        -torch.log(torch.exp(others - largest).sum(dim=-1)) - largest[..., 0]
    )


def _expected_surprise(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """The cross entropy of probabilities: [..., classes] -> [...].

    With a the largest logit, log1p(sum_{j != a} exp(z_j - z_a)) sum(q) + sum_{k != a}
    q_k (z_a - z_k): positive terms.
    """
    labels = (1 - label_smoothing) * labels + label_smoothing / logits.shape[-1]
    top = _largest(logits)
    gaps = torch.where(top, logits, 0).sum(dim=-1, keepdim=True) - logits
    others = torch.where(top, 0, torch.exp(-gaps)).sum(dim=-1)
    return torch.log1p(others) * labels.sum(dim=-1) + torch.where(
        top, 0, labels * gaps
    ).sum(dim=-1)


def _mean_per_example(losses: torch.Tensor) -> torch.Tensor:
    return losses.reshape(losses.shape[0], -1).mean(dim=-1)


def _largest(scores: torch.Tensor) -> torch.Tensor:
    """True at the largest of the last axis, the first of equals: [..., classes] bool."""
    return functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).bool()


def _one_hot(name: str, targets: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    if targets.shape != scores.shape[:-1] or targets.is_floating_point():
        raise UserError(
            f"--loss: {name} takes an integer class for each row of outputs "
            f"{tuple(scores.shape)}, got {targets.dtype} targets "
            f"{tuple(targets.shape)}; choose a loss that fits the data"
        )
    return functional.one_hot(targets.long(), scores.shape[-1]).to(scores.dtype)


def _check_shapes(name: str, outputs: torch.Tensor, targets: torch.Tensor) -> None:
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
