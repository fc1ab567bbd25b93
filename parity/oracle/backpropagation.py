"""Backpropagation of a dense network, layer by layer and without a tape.

The equations are those of a textbook (Rumelhart, Hinton & Williams 1986), with examples
as columns, W[l] of shape [n_l, n_(l-1)] and * elementwise:

    forward     z[l] = W[l] a[l-1] + b[l],  a[l] = s(z[l]),  none after the last layer
    error       delta[L] = dC/dz[L],  delta[l] = (W[l+1]^T delta[l+1]) * s'(z[l])
    gradients   dC/dW[l] = delta[l] a[l-1]^T,  dC/db[l] = sum of the columns of delta[l]

C is the loss, averaged over outputs and examples. jaxnn's kernels are W^T. Dropout
multiplies a[l] by a constant.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.dropout import Masks, mask
from parity.oracle.operations import erfc

Arrays = Mapping[str, np.ndarray]

MODELS = ("linear", "perceptron", "logistic", "mlp")
"""Networks that these equations cover, if not normalized."""


class Forward(NamedTuple):
    """Results of the forward pass that the backward pass needs, [units, samples] each.

    Attributes:
      z: z[1], ..., z[L].
      a: a[0], ..., a[L-1].
      kept: factors that dropout multiplied a[1], ..., a[L-1] by.
    """

    z: list[np.ndarray]
    a: list[np.ndarray]
    kept: list[np.ndarray]


class LayerGradients(NamedTuple):
    """What backpropagation makes of a layer.

    Attributes:
      name: of the layer.
      error: delta, dC/dz [units, samples].
      kernel: dC/dW of jaxnn's kernel [inputs, units].
      bias: dC/db [units].
      inputs: dC/da of what the layer was given [inputs, samples].
    """

    name: str
    error: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    inputs: np.ndarray


def gradients(
    experiment: Experiment,
    params: Arrays,
    inputs: np.ndarray,
    targets: np.ndarray,
    step: int,
) -> dict[str, np.ndarray]:
    """Returns {"loss", "grads/NAME"} of a batch, named as in `parity.oracle.step`.

    Args:
      experiment: a dense network without normalization.
      params: parameters by name.
      inputs: [samples, ...].
      targets: [samples, ...].
      step: batches seen before, for the dropout masks.

    Raises:
      UserError: the network has other layers, or a loss or an activation without an
        equation here.
    """
    loss, layers = by_layer(experiment, params, inputs, targets, step)
    grads = {"loss": np.asarray(loss)}
    for layer in layers:
        grads[f"grads/{layer.name}/kernel"] = layer.kernel
        if experiment.use_bias:
            grads[f"grads/{layer.name}/bias"] = layer.bias
    return grads


def by_layer(
    experiment: Experiment,
    params: Arrays,
    inputs: np.ndarray,
    targets: np.ndarray,
    step: int,
) -> tuple[float, list[LayerGradients]]:
    """Returns the loss, and what each layer gets, the last layer first.

    Takes and raises what `gradients` does.
    """
    _require_equations(experiment)
    hidden = [f"hidden_{number}" for number in range(len(experiment.hidden_sizes))]
    layers = [*hidden, "output"]
    weights = [np.asarray(params[f"{layer}/kernel"], np.float64).T for layer in layers]
    biases = [
        np.asarray(params.get(f"{layer}/bias", np.zeros(len(w))), np.float64)
        for layer, w in zip(layers, weights)
    ]

    # exp(-z) of a sigmoid overflows at large negative z, and 1 / inf = 0 is right.
    with np.errstate(over="ignore"):
        passed = _forward(experiment, weights, biases, inputs, step)
        loss, delta = LOSSES[experiment.loss](
            passed.z[-1], targets.T, experiment.label_smoothing
        )
        found = list(_backward(experiment, layers, weights, passed, delta))
    return float(loss), found


def _require_equations(experiment: Experiment) -> None:
    """Raises UserError on a layer, an activation or a loss without an equation here."""
    if experiment.residual or experiment.random_crop or experiment.random_flip:
        raise UserError(
            "--residual, --random_crop, --random_flip: are beyond layer-wise "
            "backpropagation; leave them out"
        )
    if experiment.model not in MODELS or experiment.normalization != "none":
        raise UserError(
            f"--model: {experiment.model} with "
            f"--normalization={experiment.normalization} is beyond layer-wise "
            f"backpropagation; it knows {', '.join(MODELS)} without normalization"
        )
    for flag, name, known in (
        ("activation", experiment.activation, ACTIVATIONS),
        ("loss", experiment.loss, LOSSES),
    ):
        if name not in known:
            raise UserError(
                f"--{flag}: {name} has no equation of layer-wise backpropagation; it "
                f"knows {', '.join(known)}"
            )


def _forward(
    experiment: Experiment,
    weights: list[np.ndarray],
    biases: list[np.ndarray],
    inputs: np.ndarray,
    step: int,
) -> Forward:
    activate, _ = ACTIVATIONS[experiment.activation]
    columns = np.asarray(inputs, np.float64).reshape(len(inputs), -1).T
    z = []
    a = [columns]
    kept = []

    for layer, (w, b) in enumerate(zip(weights, biases)):
        z.append(w @ a[-1] + b[:, None])
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
) -> Iterator[LayerGradients]:
    _, times_derivative = ACTIVATIONS[experiment.activation]

    # Lists count from 0: layer `number` has z[number] and the input a[number].
    for number in reversed(range(len(layers))):
        inputs = weights[number].T @ delta
        yield LayerGradients(
            layers[number],
            error=delta,
            kernel=(delta @ passed.a[number].T).T,
            bias=delta.sum(axis=1),
            inputs=inputs,
        )
        if number > 0:
            delta = times_derivative(
                inputs * passed.kept[number - 1],
                passed.z[number - 1],
                experiment.leaky_relu_alpha,
            )


def _kept(
    experiment: Experiment, layer: int, shape: tuple[int, ...], step: int
) -> np.ndarray:
    """Returns 1 / (1 - rate) for units that dropout keeps and 0 for the others."""
    rate = experiment.dropout_rates[layer] if experiment.dropout_rates else 0.0
    if rate == 0:
        return np.ones(shape)
    # Masks are drawn for [samples, units].
    masks = Masks(experiment.seed, step)
    return mask(masks, layer, 1 - rate, shape[::-1]).T / (1 - rate)


# Activations s(z, alpha), and error * s'(z). alpha is the slope of leaky_relu.


def _leaky_relu(z: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(z > 0, z, alpha * z)


def _leaky_relu_derivative(
    error: np.ndarray, z: np.ndarray, alpha: float
) -> np.ndarray:
    return error * np.where(z > 0, 1, alpha)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _sigmoid_derivative(error: np.ndarray, z: np.ndarray, alpha: float) -> np.ndarray:
    # s(-z) is 1 - s(z) without its cancellation at z >> 0.
    return error * _sigmoid(z) * _sigmoid(-z)


def _softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(axis=0))
    return powers / powers.sum(axis=0)


def _softmax_derivative(error: np.ndarray, z: np.ndarray, alpha: float) -> np.ndarray:
    # Not elementwise: dp_k/dz_j = p_k ([k = j] - p_j).
    p = _softmax(z)
    return p * (error - (error * p).sum(axis=0))


def _gelu(z: np.ndarray, alpha: float) -> np.ndarray:
    return z * erfc(-z / 2**0.5).value / 2


def _gelu_derivative(error: np.ndarray, z: np.ndarray, alpha: float) -> np.ndarray:
    # P(z) + z p(z), P and p the distribution function and density of N(0, 1).
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


# Losses (z[L], targets, label smoothing) -> (C, delta[L]).

Cost = tuple[np.floating, np.ndarray]


def _mse(z: np.ndarray, t: np.ndarray, smoothing: float) -> Cost:
    return np.mean((z - t) ** 2), 2 * (z - t) / z.size


def _binary_cross_entropy(z: np.ndarray, t: np.ndarray, smoothing: float) -> Cost:
    loss = np.mean(t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z))
    # s(z) - t, without cancellation for a confident, right answer.
    return loss, ((1 - t) * _sigmoid(z) - t * _sigmoid(-z)) / z.size


def _cross_entropy(z: np.ndarray, t: np.ndarray, smoothing: float) -> Cost:
    p = _softmax(z)
    q = (1 - smoothing) * _labels(z, t) + smoothing / len(z)
    top = z.max(axis=0)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=0))
    loss = -np.sum(q * log_p) / z.shape[1]
    return loss, (p * q.sum(axis=0) - q) / z.shape[1]


def _hinge(z: np.ndarray, t: np.ndarray, smoothing: float) -> Cost:
    signs = 2 * t - 1
    margins = 1 - signs * z
    return np.mean(np.maximum(margins, 0)), -signs * (margins > 0) / z.size


def _multiclass_hinge(z: np.ndarray, t: np.ndarray, smoothing: float) -> Cost:
    labels = _labels(z, t)
    margins = (1 + z - (labels * z).sum(axis=0)) * (1 - labels)
    loss = np.sum(np.maximum(margins, 0)) / z.size
    # The right class is in every violated margin, with a minus sign.
    wrong = (margins > 0).astype(np.float64)
    return loss, (wrong - labels * wrong.sum(axis=0)) / z.size


def _perceptron(z: np.ndarray, t: np.ndarray, smoothing: float) -> Cost:
    # Integer classes have one axis less than the scores, labels as many.
    if t.ndim < z.ndim:
        errors = _labels(z, z.argmax(axis=0)) - _labels(z, t)
        return np.sum(errors * z) / z.shape[1], errors / z.shape[1]
    errors = (z >= 0) - t
    return np.mean(errors * z), errors / z.size


def _labels(z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Returns [classes, samples] one-hot labels of classes, and probabilities as is."""
    if t.ndim == z.ndim:
        return t.astype(np.float64)
    return (np.arange(len(z))[:, None] == t).astype(np.float64)


# Name -> (s(z, alpha), error * s'(z)). To add an activation: two functions and one row.
ACTIVATIONS = {
    "linear": (lambda z, alpha: z, lambda error, z, alpha: error),
    "step": (lambda z, alpha: (z >= 0) * 1.0, lambda error, z, alpha: 0 * error),
    "relu": (
        lambda z, alpha: np.maximum(z, 0),
        lambda error, z, alpha: error * (z > 0),
    ),
    "leaky_relu": (_leaky_relu, _leaky_relu_derivative),
    "sigmoid": (lambda z, alpha: _sigmoid(z), _sigmoid_derivative),
    "tanh": (
        lambda z, alpha: np.tanh(z),
        lambda error, z, alpha: error * (1 - np.tanh(z) ** 2),
    ),
    "softmax": (lambda z, alpha: _softmax(z), _softmax_derivative),
    "gelu": (_gelu, _gelu_derivative),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_derivative),
}

# Name -> (z[L], targets, label smoothing) -> (C, delta[L]). To add a loss: one function
# and one row.
LOSSES = {
    "mse": _mse,
    "binary_cross_entropy": _binary_cross_entropy,
    "cross_entropy": _cross_entropy,
    "hinge": _hinge,
    "multiclass_hinge": _multiclass_hinge,
    "perceptron": _perceptron,
}
