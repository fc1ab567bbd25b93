"""The two stacks side by side in float64: same inputs, same loss, gradients and
optimizer step to 1e-10."""

import functools
import importlib
import inspect
import pathlib

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import jaxnn.activations
import jaxnn.dropout
import jaxnn.initializers
import jaxnn.losses
import jaxnn.metrics
import jaxnn.models
import jaxnn.optimizers
import jaxnn.train
import jaxnn.train_step
import torch_ref.activations
import torch_ref.dropout
import torch_ref.initializers
import torch_ref.losses
import torch_ref.metrics
import torch_ref.models
import torch_ref.optimizers
import torch_ref.train
import torch_ref.train_step
from jaxnn.experiment import catalogue
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import flatten, unflatten
from jaxnn.experiment.flags.config import Experiment
from jaxnn.models import recurrence
from torch_ref import params_io
from torch_ref.models import rnn

REGISTRIES = [
    "activations.ACTIVATIONS",
    "losses.LOSSES",
    "metrics.METRICS",
    "initializers.INITIALIZERS",
    "optimizers.OPTIMIZERS",
    "models.FAMILIES",
]
EXPERIMENTS = {
    "linear": Experiment(num_samples=64),
    "breast_cancer": Experiment(
        dataset="breast_cancer",
        preprocess="standardize",
        model="mlp",
        hidden_sizes=(64, 32),
        dropout_rates=(0.3, 0.2),
        loss="binary_cross_entropy",
    ),
    "digits": Experiment(
        dataset="digits",
        preprocess="standardize",
        model="mlp",
        hidden_sizes=(32, 16),
        activation="tanh",
        dropout_rates=(0.1, 0.5),
        loss="cross_entropy",
    ),
}
NETWORKS = {
    **EXPERIMENTS,
    "cnn": Experiment(
        dataset="digits", model="cnn", normalization="batch", loss="cross_entropy"
    ),
    "resnet": Experiment(dataset="digits", model="resnet", loss="cross_entropy"),
    "lstm": Experiment(dataset="sine", model="lstm", hidden_sizes=(4, 3)),
    "transformer": Experiment(
        dataset="markov",
        num_classes=7,
        model="transformer",
        loss="cross_entropy",
        num_heads=2,
    ),
}
FILES = {
    stack: {path.relative_to(stack) for path in pathlib.Path(stack).rglob("*.py")}
    for stack in ("jaxnn", "torch_ref")
}
TWINS = sorted(FILES["jaxnn"] & FILES["torch_ref"] - {pathlib.Path("__init__.py")})
"""Every file that both stacks have, relative to its stack."""

STEP = 7
finite = st.floats(-1e4, 1e4, width=64)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def both(name: str):
    module, registry = name.split(".")
    return (getattr(getattr(stack, module), registry) for stack in (jaxnn, torch_ref))


class TestRegistries:
    @pytest.mark.parametrize("name", REGISTRIES)
    def test_same_names(self, name):
        ours, theirs = both(name)
        assert list(ours) == list(theirs)

    @pytest.mark.parametrize("name", REGISTRIES)
    def test_flags_offer_them(self, name):
        ours, _ = both(name)
        offered = {
            "models.FAMILIES": {facts.family for facts in catalogue.MODELS.values()},
            "metrics.METRICS": catalogue.TASKS,
        }
        registry = name.split(".")[1]
        assert set(ours) == set(
            offered[name] if name in offered else getattr(catalogue, registry)
        )

    def test_flags_offer_every_cell(self):
        assert tuple(recurrence.CELLS) == catalogue.RECURRENT == tuple(rnn.CELLS)

    @pytest.mark.parametrize("module", ["activations", "losses", "metrics", "dropout"])
    def test_same_public_functions_in_the_same_order(self, module):
        ours, theirs = (
            [
                name
                for name, value in vars(getattr(stack, module)).items()
                if inspect.isfunction(value) and value.__module__.endswith(f".{module}")
            ]
            for stack in (jaxnn, torch_ref)
        )
        assert ours == theirs


def module_of(stack: str, twin: pathlib.Path):
    parts = [part for part in twin.with_suffix("").parts if part != "__init__"]
    return importlib.import_module(".".join([stack, *parts]))


def defined_in(stack: str, twin: pathlib.Path) -> list[str]:
    """Public functions and classes of a module, in their order."""
    module = module_of(stack, twin)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]


class TestFiles:
    @pytest.mark.parametrize("twin", TWINS, ids=str)
    def test_each_says_whose_twin_it_is(self, twin):
        for stack, other in (("jaxnn", "torch_ref"), ("torch_ref", "jaxnn")):
            text = " ".join(module_of(stack, twin).__doc__.split())
            assert f"Twin of {other}/{twin}." in text

    @pytest.mark.parametrize("twin", TWINS, ids=str)
    def test_what_both_define_is_in_the_same_order(self, twin):
        ours, theirs = (defined_in(stack, twin) for stack in ("jaxnn", "torch_ref"))
        assert [name for name in ours if name in theirs] == [
            name for name in theirs if name in ours
        ]

    def test_no_other_file_claims_a_twin(self):
        for stack, files in FILES.items():
            for file in files - set(TWINS):
                assert "Twin of" not in pathlib.Path(stack, file).read_text(), file


class TestActivations:
    @pytest.mark.parametrize("name", jaxnn.activations.ACTIVATIONS)
    @given(x=arrays(np.float64, 5, elements=finite))
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_value_and_gradient(self, name, x):
        ours, theirs = (registry[name] for registry in both("activations.ACTIVATIONS"))
        leaf = torch.tensor(x, requires_grad=True)
        value = theirs(leaf)
        value.sum().backward()
        np.testing.assert_allclose(
            ours(x), value.detach().numpy(), rtol=1e-14, atol=1e-300
        )
        gradient = jax.grad(lambda x: ours(x).sum())(x)
        np.testing.assert_allclose(
            gradient, leaf.grad.numpy(), rtol=1e-13, atol=1e-15
        )  # 1 - tanh^2 cancels at 1


class TestMetrics:
    @pytest.mark.parametrize("task", jaxnn.metrics.METRICS)
    def test_equal(self, task):
        rng = np.random.default_rng(0)
        shape = {"multiclass": (9, 3), "language": (9, 4, 3)}.get(task, (9, 1))
        outputs = rng.standard_normal(shape).astype(np.float32)
        targets = {
            "regression": outputs + 1,
            "binary": rng.integers(0, 2, (9, 1)).astype(np.float32),
            "multiclass": rng.integers(0, 3, 9),
            "language": rng.integers(0, 3, (9, 4)),
        }[task]
        ours, theirs = (registry[task][1] for registry in both("metrics.METRICS"))
        value, expected = (
            ours(outputs, targets),
            theirs(torch.tensor(outputs), torch.tensor(targets)),
        )
        if task == "language":
            # A sum of exponentials, a logarithm, a mean of four: a few roundings each.
            np.testing.assert_allclose(
                value, expected, rtol=8 * np.finfo(np.float32).eps
            )
        else:
            np.testing.assert_array_equal(value, expected)


class TestNetworkOf:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_both_show_the_same_table(self, name):
        experiment = NETWORKS[name].replace(precision="fp32", num_samples=512)
        signature = load_dataset(experiment).signature
        model = jaxnn.models.build(experiment, signature)
        optimizer = jaxnn.optimizers.OPTIMIZERS["sgd"](experiment)
        start = functools.partial(
            jaxnn.train.start, experiment, model, optimizer, signature
        )
        found = []
        # Traced, because compiling takes many seconds.
        with jax.enable_x64(False):
            jax.eval_shape(lambda: found.append(start()[1]))
        (ours,) = found
        model = torch_ref.models.build(experiment, signature)
        theirs = torch_ref.train.network_of(model, signature, torch.device("cpu"))
        assert ours == theirs
        assert list(ours.params) == list(theirs.params)
        assert "output" in ours.outputs
        assert model.training


class TestStep:
    """One whole step of each experiment: a ragged batch, dropout on."""

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_loss_and_gradients(self, name):
        (ours_loss, ours), (theirs_loss, theirs) = (
            jax_gradients(name),
            torch_gradients(name),
        )
        np.testing.assert_allclose(ours_loss, theirs_loss, rtol=1e-10)
        assert ours.keys() == theirs.keys()
        for tensor in ours:
            np.testing.assert_allclose(
                ours[tensor], theirs[tensor], rtol=1e-10, atol=1e-14, err_msg=tensor
            )

    @pytest.mark.parametrize("optimizer", jaxnn.optimizers.OPTIMIZERS)
    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_optimizer_step(self, name, optimizer):
        experiment = EXPERIMENTS[name].replace(
            optimizer=optimizer, fused_adam=False, learning_rate=0.01
        )
        start, gradients = initial_params(name), jax_gradients(name)[1]
        for tensor, ours in jax_step(experiment, start, gradients).items():
            theirs = torch_step(experiment, start[tensor], gradients[tensor])
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, err_msg=tensor)
            assert not np.array_equal(ours, start[tensor])


def batch(name: str):
    """Inputs, targets and weights of 16 rows, the last three of them padding."""
    data = load_dataset(EXPERIMENTS[name])
    return (
        data,
        data.train_inputs[:16].astype(np.float64),
        data.train_targets[:16],
        np.r_[np.ones(13), np.zeros(3)],
    )


def initial_params(name: str) -> dict[str, np.ndarray]:
    data, *_ = batch(name)
    model = jaxnn.models.build(EXPERIMENTS[name], data.signature)
    params = jaxnn.train_step.initial_variables(model, 0, data.signature)["params"]
    return {
        tensor: np.asarray(array, np.float64)
        for tensor, array in flatten(params).items()
    }


def jax_gradients(name: str):
    data, inputs, targets, weights = batch(name)
    experiment = EXPERIMENTS[name]
    model = jaxnn.models.build(experiment, data.signature)
    rows = jaxnn.train_step.Batch(inputs, targets, weights)
    loss, grads, _ = jaxnn.train_step.gradients(
        experiment,
        model,
        unflatten(initial_params(name)),
        {},
        rows,
        STEP,
        np.float64(1),
    )
    return loss, {tensor: np.asarray(array) for tensor, array in flatten(grads).items()}


def torch_gradients(name: str):
    data, inputs, targets, weights = batch(name)
    model = torch_ref.models.build(EXPERIMENTS[name], data.signature).double()
    params_io.load(model, initial_params(name), "the test")
    rows = torch_ref.train_step.Batch(
        *map(torch.from_numpy, (inputs, targets, weights))
    )
    loss = torch_ref.train_step.objective(
        EXPERIMENTS[name], model, rows, STEP, rank=0, world_size=1
    )
    loss.backward()
    names = params_io.flax_names(model)
    grads = {
        names[key]: p.grad.T if names[key].endswith("/kernel") else p.grad
        for key, p in model.named_parameters()
    }
    return loss.item(), {key: value.numpy() for key, value in grads.items()}


def jax_step(experiment: Experiment, params, gradients) -> dict[str, np.ndarray]:
    optimizer = jaxnn.optimizers.OPTIMIZERS[experiment.optimizer](experiment)
    state = optimizer.transform.init(params)
    params, _ = jaxnn.train_step.update(
        optimizer, params, state, gradients, np.float64(experiment.learning_rate)
    )
    return params


def torch_step(
    experiment: Experiment, start: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    param = torch.nn.Parameter(torch.tensor(start))
    param.grad = torch.tensor(gradient)
    torch_ref.optimizers.OPTIMIZERS[experiment.optimizer](experiment, [param]).step()
    return param.detach().numpy()
