"""Small versions of every network, and what jaxnn computes for them in float64."""

import functools

import jax
import numpy as np

from jaxnn import models, train_step
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.models import initial

ROW = Signature((5,), 3)
IMAGE = Signature((8, 7, 2), 3)
SERIES = Signature((6, 2), 3)
TEXT = Signature((6,), 9, 9, per_step=True)
RECURRENT = dict(hidden_sizes=(5, 4), dropout_rates=(0.3, 0.2))
TRANSFORMER = dict(width=8, num_heads=2, num_layers=1, dropout_rates=(0.1,))
BATCH_SIZE = 8
STEP = 5

NETWORKS = {
    "linear": (dict(model="linear", loss="mse"), ROW),
    "perceptron": (dict(model="perceptron", loss="perceptron"), ROW),
    "logistic": (
        dict(model="logistic", loss="binary_cross_entropy"),
        Signature((5,), 1),
    ),
    "mlp": (
        dict(
            model="mlp",
            hidden_sizes=(7, 6),
            dropout_rates=(0.3, 0.2),
            label_smoothing=0.1,
        ),
        ROW,
    ),
    "mlp, batch norm in parts": (
        dict(
            model="mlp",
            hidden_sizes=(7, 6),
            normalization="batch",
            dropout_rates=(0, 0.2),
            accumulation_steps=4,
        ),
        ROW,
    ),
    "mlp, layer norm": (
        dict(
            model="mlp",
            hidden_sizes=(7, 6),
            normalization="layer",
            activation="gelu_tanh",
        ),
        ROW,
    ),
    "mlp, residual": (
        dict(
            model="mlp",
            hidden_sizes=(5, 7, 7),
            normalization="layer",
            dropout_rates=(0.3, 0.2, 0),
            residual=True,
        ),
        ROW,
    ),
    "cnn": (
        dict(
            model="cnn",
            channels=(3, 4),
            hidden_sizes=(5,),
            normalization="batch",
            dropout_rates=(0.5,),
        ),
        IMAGE,
    ),
    "cnn, average": (
        dict(
            model="cnn",
            channels=(3, 4, 5, 6),
            kernel_size=5,
            pool="average",
            normalization="layer",
            activation="tanh",
        ),
        IMAGE,
    ),
    "mlp, no biases": (
        dict(model="mlp", hidden_sizes=(7, 6), normalization="layer", use_bias=False),
        ROW,
    ),
    "cnn, no biases": (
        dict(model="cnn", channels=(3, 4), hidden_sizes=(5,), use_bias=False),
        IMAGE,
    ),
    "resnet": (dict(model="resnet"), Signature((8, 8, 1), 3)),
    "resnet, bottlenecks": (
        dict(model="resnet", resnet_depth=50),
        Signature((16, 15, 1), 3),
    ),
    "rnn": (dict(model="rnn", **RECURRENT), SERIES),
    "rnn, text": (dict(model="rnn", **RECURRENT), TEXT),
    "lstm": (dict(model="lstm", **RECURRENT), SERIES),
    "gru": (dict(model="gru", **RECURRENT), SERIES),
    "transformer": (dict(model="transformer", **TRANSFORMER), TEXT),
    "transformer_encoder": (
        dict(model="transformer_encoder", **TRANSFORMER),
        Signature((6, 3, 2), 4),
    ),
}


def build(name):
    """Returns the experiment and signature of a network."""
    flags, signature = NETWORKS[name]
    # "direct" is XLA's convolution, not jaxnn's own.
    experiment = Experiment(
        **{"loss": "cross_entropy", **flags},
        batch_size=BATCH_SIZE,
        seed=3,
        convolution="direct",
    )
    return experiment, signature


def variables(experiment, signature):
    """Returns parameters and running statistics by name.

    The oracle's initial values are moved at random, so that none is 0 or 1.
    """
    rng = np.random.default_rng(1)
    params, batch_stats = initial(experiment, signature)
    return (
        {
            name: array + 0.1 * rng.standard_normal(array.shape)
            for name, array in params.items()
        },
        {
            name: array + rng.uniform(0, 0.1, array.shape)
            for name, array in batch_stats.items()
        },
    )


def batch(experiment, signature, rows):
    """Returns the inputs and targets of a batch."""
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((rows, *signature.input_shape))
    if signature.num_tokens:
        inputs = rng.integers(0, signature.num_tokens, inputs.shape).astype(np.int32)
    if experiment.loss in ("mse", "binary_cross_entropy"):
        values = rng.standard_normal((rows, signature.num_outputs))
        return inputs, values if experiment.loss == "mse" else (values > 0).astype(
            np.float64
        )
    shape = inputs.shape if signature.per_step else (rows,)
    return inputs, rng.integers(0, signature.num_outputs, shape).astype(np.int32)


def by_jaxnn(experiment, signature, params, batch_stats, inputs, targets):
    """Returns what `parity.oracle.step.gradients` returns, computed by jaxnn."""
    padding = experiment.batch_size - len(inputs)
    rows = [
        np.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1), mode="edge")
        for array in (inputs, targets)
    ]
    weights = np.pad(np.ones(len(inputs), np.float32), (0, padding))
    with jax.enable_x64(True):
        gradients = functools.partial(
            train_step.gradients,
            experiment,
            models.build(experiment, signature),
            with_activations=True,
        )
        loss, grads, stats, activations = compiled(gradients)(
            trace.unflatten(params),
            trace.unflatten(batch_stats),
            train_step.Batch(*rows, weights),
            np.int32(STEP),
            np.float32(1),
        )
    activations = {layer: rows[: len(inputs)] for layer, rows in activations.items()}
    found = {
        "activations": activations,
        "loss": loss,
        "grads": grads,
        "updated_batch_stats": stats,
    }
    return {
        name: np.asarray(array, np.float64)
        for name, array in trace.flatten(found).items()
    }


def compiled(function):
    """jax.jit without optimization, which compiles in a tenth of the time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def assert_near(ours, theirs, relative=1e-10):
    """Asserts that names are equal and each tensor is near in norm."""
    # A gradient that is 0 but for rounding, such as that of a bias before a
    # normalization, is compared relative to all gradients together.
    assert ours.keys() == theirs.keys()
    whole = np.sqrt(
        sum(
            np.sum(np.square(theirs[name]))
            for name in theirs
            if name.startswith("grads/")
        )
    )
    for name, array in theirs.items():
        size = np.linalg.norm(array)
        size = whole if name.startswith("grads/") and size < 1e-10 * whole else size
        assert ours[name].shape == array.shape, name
        assert ours[name].dtype == np.float64, name
        assert np.linalg.norm(ours[name] - array) <= relative * size, name
