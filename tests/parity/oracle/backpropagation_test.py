"""Tests of parity/oracle/backpropagation.py.

The references are the tape, jax.grad and torch.autograd, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

import jaxnn.activations
import jaxnn.losses
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import backpropagation, models, step

SIGNATURE = Signature((5,), 3)
ROWS = 8
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((ROWS, 5))
VALUES = RNG.standard_normal((ROWS, 3))
CLASSES = RNG.integers(0, 3, ROWS)
TARGETS = {
    "mse": VALUES,
    "binary_cross_entropy": (VALUES > 0) * 1.0,
    "cross_entropy": CLASSES,
    "hinge": (VALUES > 0) * 1.0,
    "multiclass_hinge": CLASSES,
    "perceptron": CLASSES,
}
RTOL = 256 * np.finfo(np.float64).eps
"""Three layers, each a sum of at most 8 numbers and functions of several roundings."""

PLAIN = Experiment(
    model="mlp",
    hidden_sizes=(7, 6),
    loss="cross_entropy",
    activation="tanh",
    leaky_relu_alpha=0.2,
    batch_size=ROWS,
)
TORCHS = {
    "linear": lambda z: z,
    "step": lambda z: torch.heaviside(z.detach(), torch.ones(1, dtype=z.dtype)),
    "relu": torch.relu,
    "leaky_relu": lambda z: functional.leaky_relu(z, 0.2),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda z: torch.softmax(z, -1),
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
}
TORCH_LOSSES = {
    "mse": functional.mse_loss,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "cross_entropy": functional.cross_entropy,
    "multiclass_hinge": functional.multi_margin_loss,
    "hinge": lambda z, t: torch.relu(1 - (2 * t - 1) * z).mean(),
    "perceptron": lambda z, t: (z.max(1).values - z.gather(1, t[:, None])[:, 0]).mean(),
}


def params_of(experiment):
    rng = np.random.default_rng(1)
    return {
        name: array + 0.3 * rng.standard_normal(array.shape)
        for name, array in models.initial(experiment, SIGNATURE)[0].items()
    }


def layer_by_layer(experiment, number=0):
    return backpropagation.gradients(
        experiment, params_of(experiment), INPUTS, TARGETS[experiment.loss], number
    )


def by_tape(experiment, number=0):
    found = step.gradients(
        experiment,
        SIGNATURE,
        params_of(experiment),
        {},
        INPUTS,
        TARGETS[experiment.loss],
        number,
    )
    return {
        name: array
        for name, array in found.items()
        if not name.startswith("activations/")
    }


def by_jax(experiment):
    """Returns loss and gradients by jax.grad of a network written out."""
    activation = jaxnn.activations.build(
        experiment.activation, experiment.leaky_relu_alpha
    )
    loss = jaxnn.losses.build(experiment.loss, experiment.label_smoothing)

    def objective(params):
        a = jnp.asarray(INPUTS)
        for layer in ("hidden_0", "hidden_1"):
            a = activation(
                a @ params[f"{layer}/kernel"] + params[f"{layer}/bias"][None]
            )
        z = a @ params["output/kernel"] + params["output/bias"][None]
        return loss(z, jnp.asarray(TARGETS[experiment.loss])).mean()

    with jax.enable_x64(True):
        value, grads = jax.value_and_grad(objective)(
            {name: jnp.asarray(array) for name, array in params_of(experiment).items()}
        )
    return {"loss": value, **{f"grads/{name}": array for name, array in grads.items()}}


def by_torch(experiment):
    """Returns loss and gradients by torch.autograd of a network written out."""
    params = {
        name: torch.tensor(array, requires_grad=True)
        for name, array in params_of(experiment).items()
    }
    a = torch.tensor(INPUTS)
    for layer in ("hidden_0", "hidden_1"):
        a = TORCHS[experiment.activation](
            a @ params[f"{layer}/kernel"] + params[f"{layer}/bias"]
        )
    z = a @ params["output/kernel"] + params["output/bias"]
    loss = TORCH_LOSSES[experiment.loss](z, torch.tensor(TARGETS[experiment.loss]))
    grads = torch.autograd.grad(
        loss, list(params.values()), allow_unused=True, materialize_grads=True
    )
    return {
        "loss": loss.item(),
        **{f"grads/{name}": grad.numpy() for name, grad in zip(params, grads)},
    }


def assert_equal_but_for_rounding(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        array = np.asarray(array, np.float64)
        assert ours[name].shape == array.shape
        assert np.linalg.norm(ours[name] - array) <= RTOL * max(
            np.linalg.norm(array), 1e-3
        ), name


@pytest.mark.parametrize("reference", [by_tape, by_jax, by_torch])
class TestGradients:
    @pytest.mark.parametrize("activation", backpropagation.ACTIVATIONS)
    def test_of_every_activation(self, reference, activation):
        experiment = PLAIN.replace(activation=activation)
        assert_equal_but_for_rounding(layer_by_layer(experiment), reference(experiment))

    @pytest.mark.parametrize("loss", backpropagation.LOSSES)
    def test_of_every_loss(self, reference, loss):
        experiment = PLAIN.replace(loss=loss)
        assert_equal_but_for_rounding(layer_by_layer(experiment), reference(experiment))


class TestAgainstTheTape:
    def test_with_dropout(self):
        experiment = PLAIN.replace(dropout_rates=(0.5, 0.3))
        assert_equal_but_for_rounding(
            layer_by_layer(experiment, 3), by_tape(experiment, 3)
        )
        assert (
            layer_by_layer(experiment, 3)["loss"]
            != layer_by_layer(experiment, 4)["loss"]
        )

    def test_with_label_smoothing(self):
        experiment = PLAIN.replace(label_smoothing=0.2)
        assert_equal_but_for_rounding(layer_by_layer(experiment), by_tape(experiment))

    @pytest.mark.parametrize(
        ("model", "loss"),
        [
            ("linear", "mse"),
            ("perceptron", "perceptron"),
            ("logistic", "binary_cross_entropy"),
        ],
    )
    def test_of_one_layer(self, model, loss):
        experiment = PLAIN.replace(model=model, loss=loss, hidden_sizes=())
        assert_equal_but_for_rounding(layer_by_layer(experiment), by_tape(experiment))

    def test_of_a_perceptron_of_labels(self, monkeypatch):
        monkeypatch.setitem(TARGETS, "perceptron", TARGETS["hinge"])
        experiment = PLAIN.replace(loss="perceptron")
        assert_equal_but_for_rounding(layer_by_layer(experiment), by_tape(experiment))

    def test_by_hand(self):
        # One unit, two examples, integers: delta = 2 (z - t) / n, dW = delta x^T.
        experiment = Experiment(model="linear", loss="mse")
        params = {"output/kernel": np.array([[2.0]]), "output/bias": np.array([1.0])}
        found = backpropagation.gradients(
            experiment, params, np.array([[1.0], [3.0]]), np.array([[0.0], [5.0]]), 0
        )
        assert found == {
            "loss": (9 + 4) / 2,
            "grads/output/kernel": 3 + 2 * 3,
            "grads/output/bias": 3 + 2,
        }


@pytest.mark.parametrize(
    "flags",
    [dict(model="cnn"), dict(normalization="batch"), dict(normalization="layer")],
)
def test_refuses_other_layers(flags):
    with pytest.raises(
        UserError,
        match=r"--model: .* beyond layer-wise backpropagation; it knows linear, ",
    ):
        layer_by_layer(PLAIN.replace(**flags))


@pytest.mark.parametrize(
    ("flag", "known"), [("activation", "linear, step"), ("loss", "mse")]
)
def test_names_what_it_has_equations_for(flag, known):
    with pytest.raises(UserError, match=rf"^--{flag}: other has no .* knows .*{known}"):
        backpropagation.gradients(
            PLAIN.replace(**{flag: "other"}),
            params_of(PLAIN),
            INPUTS,
            TARGETS[PLAIN.loss],
            0,
        )


def test_gradients_by_inputs_are_jaxs():
    params = params_of(PLAIN)
    _, layers = backpropagation.by_layer(
        PLAIN, params, INPUTS, TARGETS[PLAIN.loss], step=0
    )
    loss = jaxnn.losses.build(PLAIN.loss, 0.0)

    def objective(a):
        for layer in ("hidden_0", "hidden_1"):
            a = jnp.tanh(a @ params[f"{layer}/kernel"] + params[f"{layer}/bias"][None])
        z = a @ params["output/kernel"] + params["output/bias"][None]
        return loss(z, jnp.asarray(TARGETS[PLAIN.loss])).mean()

    with jax.enable_x64(True):
        expected = jax.grad(objective)(jnp.asarray(INPUTS))
    assert layers[-1].name == "hidden_0"
    np.testing.assert_allclose(
        layers[-1].inputs.T, expected, rtol=RTOL, atol=RTOL * np.abs(expected).max()
    )
