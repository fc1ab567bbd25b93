"""Backpropagation of a dense network layer by layer, by the equations of a textbook and
without a tape.

With examples as columns, W[l] of shape [n_l, n_(l-1)] and * elementwise (Rumelhart,
Hinton & Williams 1986):

    forward     z[l] = W[l] a[l-1] + b[l],  a[l] = s(z[l]);  the last layer has no activation
    error       delta[L] = dC/dz[L],  delta[l] = (W[l+1]^T delta[l+1]) * s'(z[l])
    gradients   dC/dW[l] = delta[l] a[l-1]^T,  dC/db[l] = the sum of delta[l]'s columns

C is the loss averaged over outputs and examples; jaxnn's kernels are W^T. Dropout
multiplies a[l] by a constant.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.dropout import Masks, mask
from parity.oracle.operations import erfc

Arrays = Mapping[str, np.ndarray]
MODELS = ("linear", "perceptron", "logistic", "mlp")


class Forward(NamedTuple):
    """What the forward pass leaves for the backward pass; [units, samples] each.

    Attributes:
      z: z[1], ..., z[L].
      a: a[0], ..., a[L-1].
      kept: what dropout multiplied a[1], ..., a[L-1] by.
    """

    z: list[np.ndarray]
    a: list[np.ndarray]
    kept: list[np.ndarray]


def gradients(
    experiment: Experiment,
    params: Arrays,
    inputs: np.ndarray,
    targets: np.ndarray,
    step: int,
) -> dict[str, np.ndarray]:
    """{"loss", "grads/NAME"} of one batch, as `parity.oracle.step.gradients` has them.

    Args:
      experiment: its network is dense, without normalization.
      params: by name.
      inputs: [samples, ...].
      targets: [samples, ...].
      step: batches seen before, for the dropout masks.

    Raises:
      UserError: the network has layers that these equations do not speak of.
    """
    if experiment.model not in MODELS or experiment.normalization != "none":
        raise UserError(
            f"--model: {experiment.model} with "
            f"--normalization={experiment.normalization} is beyond layer-wise "
            f"backpropagation; it knows {', '.join(MODELS)} without normalization"
        )
    layers = [
        *(f"hidden_{number}" for number in range(len(experiment.hidden_sizes))),
        "output",
    ]
    weights = [np.asarray(params[f"{layer}/kernel"], np.float64).T for layer in layers]
    biases = [
        np.asarray(params[f"{layer}/bias"], np.float64)[:, None] for layer in layers
    ]
    with np.errstate(over="ignore"):  # exp(-z) of a sigmoid at its end
        passed = _forward(experiment, weights, biases, inputs, step)
        loss, delta = LOSSES[experiment.loss](
            passed.z[-1], targets.T, experiment.label_smoothing
        )
        return {
            "loss": np.asarray(loss),
            **_backward(experiment, layers, weights, passed, delta),
        }


def _forward(
    experiment: Experiment,
    weights: list[np.ndarray],
    biases: list[np.ndarray],
    inputs: np.ndarray,
    step: int,
) -> Forward:
    activate, _ = ACTIVATIONS[experiment.activation]
    z, a, kept = [], [np.asarray(inputs, np.float64).reshape(len(inputs), -1).T], []
    for layer, (w, b) in enumerate(zip(weights, biases)):
        z.append(w @ a[-1] + b)
        if layer < len(weights) - 1:
            kept.append(_kept(experiment, layer, z[-1].shape, step))
            a.append(activate(z[-1], experiment.leaky_relu_alpha) * kept[-1])
    return Forward(z, a, kept)


def _backward(
    experiment: Experiment,
    layers: list[str],
    weights: list[np.ndarray],
    passed: Forward,
    delta: np.ndarray,
) -> dict[str, np.ndarray]:
    _, times_derivative = ACTIVATIONS[experiment.activation]
    grads = {}
    for number in reversed(range(len(layers))):
        grads[f"grads/{layers[number]}/kernel"] = (delta @ passed.a[number].T).T
        grads[f"grads/{layers[number]}/bias"] = delta.sum(axis=1)
        if number:
            error = weights[number].T @ delta * passed.kept[number - 1]
            delta = times_derivative(
                error, passed.z[number - 1], experiment.leaky_relu_alpha
            )
    return grads


def _kept(
    experiment: Experiment, layer: int, shape: tuple[int, ...], step: int
) -> np.ndarray:
    rate = experiment.dropout_rates[layer] if experiment.dropout_rates else 0.0
    if rate == 0:
        return np.ones(shape)
    return mask(Masks(experiment.seed, step), layer, 1 - rate, shape[::-1]).T / (
        1 - rate
    )


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(axis=0))
    return powers / powers.sum(axis=0)


def _softmax_derivative(error: np.ndarray, z: np.ndarray, alpha: float) -> np.ndarray:
    """Not elementwise: dp_k/dz_j = p_k ([k = j] - p_j)."""
    p = _softmax(z)
    return p * (error - (error * p).sum(axis=0))


def _gelu_derivative(error: np.ndarray, z: np.ndarray, alpha: float) -> np.ndarray:
    return error * (
        erfc(-z / 2**0.5).value / 2 + z * np.exp(-z * z / 2) / (2 * np.pi) ** 0.5
    )


def _gelu_tanh(z: np.ndarray, alpha: float) -> np.ndarray:
    return z * _sigmoid((8 / np.pi) ** 0.5 * (z + 0.044715 * z**3))


def _gelu_tanh_derivative(error: np.ndarray, z: np.ndarray, alpha: float) -> np.ndarray:
    s = _sigmoid((8 / np.pi) ** 0.5 * (z + 0.044715 * z**3))
    return error * (
        s + z * s * (1 - s) * (8 / np.pi) ** 0.5 * (1 + 3 * 0.044715 * z**2)
    )


def _mse(z: np.ndarray, t: np.ndarray, smoothing: float) -> tuple[float, np.ndarray]:
    return np.mean((z - t) ** 2), 2 * (z - t) / z.size


def _binary_cross_entropy(
    z: np.ndarray, t: np.ndarray, smoothing: float
) -> tuple[float, np.ndarray]:
    loss = np.mean(t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z))
    return loss, ((1 - t) * _sigmoid(z) - t * _sigmoid(-z)) / z.size


def _cross_entropy(
    z: np.ndarray, t: np.ndarray, smoothing: float
) -> tuple[float, np.ndarray]:
    p, q = _softmax(z), (1 - smoothing) * _labels(z, t) + smoothing / len(z)
    top = z.max(axis=0)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=0))
    return -np.sum(q * log_p) / z.shape[1], (p * q.sum(axis=0) - q) / z.shape[1]


def _hinge(z: np.ndarray, t: np.ndarray, smoothing: float) -> tuple[float, np.ndarray]:
    signs = 2 * t - 1
    margins = 1 - signs * z
    return np.mean(np.maximum(margins, 0)), -signs * (margins > 0) / z.size


def _multiclass_hinge(
    z: np.ndarray, t: np.ndarray, smoothing: float
) -> tuple[float, np.ndarray]:
    labels = _labels(z, t)
    margins = (1 + z - (labels * z).sum(axis=0)) * (1 - labels)
    wrong = (margins > 0).astype(np.float64)
    return np.sum(np.maximum(margins, 0)) / z.size, (
        wrong - labels * wrong.sum(axis=0)
    ) / z.size


def _perceptron(
    z: np.ndarray, t: np.ndarray, smoothing: float
) -> tuple[float, np.ndarray]:
    if t.ndim < z.ndim:
        errors = _labels(z, z.argmax(axis=0)) - _labels(z, t)
        return np.sum(errors * z) / z.shape[1], errors / z.shape[1]
    errors = (z >= 0) - t
    return np.mean(errors * z), errors / z.size


def _labels(z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """[classes, samples] of 0 and 1 from classes; probabilities as they are."""
    return (
        t.astype(np.float64)
        if t.ndim == z.ndim
        else (np.arange(len(z))[:, None] == t).astype(np.float64)
    )


ACTIVATIONS = {
    "linear": (lambda z, alpha: z, lambda error, z, alpha: error),
    "step": (lambda z, alpha: (z >= 0) * 1.0, lambda error, z, alpha: 0 * error),
    "relu": (
        lambda z, alpha: np.maximum(z, 0),
        lambda error, z, alpha: error * (z > 0),
    ),
    "leaky_relu": (
        lambda z, alpha: np.where(z > 0, z, alpha * z),
        lambda error, z, alpha: error * np.where(z > 0, 1, alpha),
    ),
    "sigmoid": (
        lambda z, alpha: _sigmoid(z),
        lambda error, z, alpha: error * _sigmoid(z) * _sigmoid(-z),
    ),
    "tanh": (
        lambda z, alpha: np.tanh(z),
        lambda error, z, alpha: error * (1 - np.tanh(z) ** 2),
    ),
    "softmax": (lambda z, alpha: _softmax(z), _softmax_derivative),
    "gelu": (lambda z, alpha: z * erfc(-z / 2**0.5).value / 2, _gelu_derivative),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_derivative),
}
"""Name -> (s(z, alpha), error * s'(z)), alpha being the slope of leaky_relu."""

LOSSES = {
    "mse": _mse,
    "binary_cross_entropy": _binary_cross_entropy,
    "cross_entropy": _cross_entropy,
    "hinge": _hinge,
    "multiclass_hinge": _multiclass_hinge,
    "perceptron": _perceptron,
}
"""Name -> (z[L], targets, label smoothing) -> (C, delta[L])."""
