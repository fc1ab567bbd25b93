"""The layers that both stacks see in every network: the same names in the same order,
the same outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import torch_ref.dropout
from jaxnn import dropout, layer_outputs, models, recording, train_step
from jaxnn.experiment.catalogue import MODELS
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files.trace import flatten
from jaxnn.experiment.flags.config import Experiment
from torch_ref import layer_outputs as torch_outputs
from torch_ref import models as torch_models
from torch_ref import params_io

ROWS, TABLE, IMAGE, SERIES = (
    5,
    Signature((4,), 3),
    Signature((8, 6, 3), 4),
    Signature((6, 2), 1),
)
TOKENS, DROPOUT = Signature((6,), 7, num_tokens=7, per_step=True), (0.5, 0.25)
TRANSFORMER = dict(num_layers=2, width=8, num_heads=2, dropout_rates=(0.25,))
NETWORKS = {
    **{
        name: (dict(model=name), TABLE) for name in ("linear", "perceptron", "logistic")
    },
    **{
        f"mlp, {kind} norm": (
            dict(
                model="mlp",
                hidden_sizes=(6, 5),
                dropout_rates=DROPOUT,
                normalization=kind,
            ),
            TABLE,
        )
        for kind in ("none", "batch", "layer")
    },
    "cnn": (
        dict(
            model="cnn",
            channels=(4, 6),
            hidden_sizes=(8, 5),
            dropout_rates=DROPOUT,
            normalization="batch",
        ),
        IMAGE,
    ),
    **{
        name: (dict(model=name, hidden_sizes=(6, 5), dropout_rates=DROPOUT), SERIES)
        for name in ("rnn", "lstm", "gru")
    },
    "lstm of tokens": (dict(model="lstm", hidden_sizes=(6, 5)), TOKENS),
    "transformer": (dict(model="transformer", **TRANSFORMER), TOKENS),
    "transformer_encoder": (dict(model="transformer_encoder", **TRANSFORMER), IMAGE),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def inputs_of(signature):
    rng = np.random.default_rng(0)
    if signature.num_tokens:
        return rng.integers(
            0, signature.num_tokens, (ROWS, *signature.input_shape)
        ).astype(np.int32)
    return rng.standard_normal((ROWS, *signature.input_shape))


def build(name):
    """(experiment, signature, flax's network, its float64 variables, torch's network
    with the same parameters)."""
    flags, signature = NETWORKS[name]
    experiment = Experiment(**flags)
    model = models.build(experiment, signature)
    variables = jax.jit(lambda: train_step.initial_variables(model, 0, signature))()
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    theirs = torch_models.build(experiment, signature).double()
    params_io.load(theirs, flatten(variables["params"]), "the test")
    return experiment, signature, model, variables, theirs


class TestCapture:
    def test_every_network_is_here(self):
        assert {flags["model"] for flags, _ in NETWORKS.values()} | {"resnet"} == set(
            MODELS
        )

    @every_network
    def test_stacks_agree(self, name):
        """In training, a row padded. float64: rounding moves no output by 10^-10 of
        itself, a fault moves it by all."""
        _, signature, model, variables, theirs = build(name)
        x, weights = inputs_of(signature), np.array([1, 1, 1, 1, 0], np.float32)

        @jax.jit
        def run(variables, x, weights):
            with layer_outputs.capture(ROWS) as outputs:
                model.apply(
                    variables,
                    x,
                    dropout.mask_source(3, 7, 0, weights),
                    mutable="batch_stats",
                )
            return outputs

        with jax.enable_x64(True):
            ours = run(variables, x, weights)
        with torch.no_grad(), torch_outputs.capture(theirs, ROWS) as passes:
            theirs(
                torch.from_numpy(x),
                torch_ref.dropout.mask_source(3, 7, 0, torch.from_numpy(weights)),
            )
        (outputs,) = passes
        assert list(ours) == list(outputs)
        assert "output" in ours
        for layer, rows in ours.items():
            assert (rows.shape, outputs[layer].dtype) == (
                outputs[layer].shape,
                torch.float64,
            )
            assert np.linalg.norm(
                np.asarray(rows) - outputs[layer].numpy()
            ) <= 1e-10 * np.linalg.norm(rows), layer
            assert np.linalg.norm(rows) > 0

    @pytest.mark.parametrize("depth", [18, 20, 32, 50])
    def test_residual_networks_by_their_shapes(self, depth):
        experiment = Experiment(model="resnet", resnet_depth=depth)
        with torch.device("meta"):
            theirs = torch_models.build(experiment, IMAGE)
            with torch_outputs.capture(theirs, ROWS) as passes:
                theirs.eval()(torch.zeros(ROWS, *IMAGE.input_shape))
        model = models.build(experiment, IMAGE)

        def run(x):
            with layer_outputs.capture(ROWS) as outputs:
                model.init(jax.random.key(0), x)
            return outputs

        ours = jax.eval_shape(run, jnp.zeros((ROWS, *IMAGE.input_shape)))
        assert [(layer, rows.shape) for layer, rows in ours.items()] == [
            (layer, tuple(rows.shape)) for layer, rows in passes[0].items()
        ]
        assert recording.parameter_names(model, IMAGE) == list(
            params_io.flax_names(theirs).values()
        )
        assert len(ours) > depth  # a convolution or Dense layer each, and norms

    @every_network
    def test_parameters_have_one_order(self, name):
        """The layers that hold them are all seen, but for the table of positions, which
        is not called."""
        flags, signature = NETWORKS[name]
        model, theirs = (
            stack.build(Experiment(**flags), signature)
            for stack in (models, torch_models)
        )
        names = recording.parameter_names(model, signature)
        assert names == list(params_io.flax_names(theirs).values())
        with torch.no_grad(), torch_outputs.capture(theirs, ROWS) as passes:
            theirs(
                torch.from_numpy(inputs_of(signature)).to(
                    torch.int32 if signature.num_tokens else torch.float32
                )
            )
        assert {name.rsplit("/", 1)[0] for name in names} - {"positions"} <= passes[
            0
        ].keys()


class Odd(nn.Module):
    """Calls layers whose outputs are of every kind."""

    @nn.compact
    def __call__(self, x):
        twice = nn.Dense(2, name="twice")
        x = twice(twice(x))
        several = Several(name="several")(x)
        Summed(name="summed")(x)
        Counted(name="counted")(x)
        nn.Dropout(0.5, deterministic=True, name="dropout")(x)
        return several[0]


class Several(nn.Module):
    """(rows, state)."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="inner")(x), x


class Summed(nn.Module):
    """A number."""

    @nn.compact
    def __call__(self, x):
        return self.param("w", nn.initializers.ones, ()) * x.sum()


class Counted(nn.Module):
    """Integers."""

    @nn.compact
    def __call__(self, x):
        return (self.param("w", nn.initializers.ones, (1, 1)) * x).astype(jnp.int32)


class TorchSeveral(torch.nn.Module):
    """Twin of Several."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.inner(x), x


class TorchScaled(torch.nn.Module):
    """A layer that applies a function to its scaled input."""

    def __init__(self, function):
        super().__init__()
        self.w, self.function = torch.nn.Parameter(torch.ones(1)), function

    def forward(self, x):
        return self.function(self.w * x)


class TorchOdd(torch.nn.Module):
    """Twin of Odd."""

    def __init__(self):
        super().__init__()
        self.twice, self.several = torch.nn.Linear(2, 2), TorchSeveral()
        self.summed, self.counted = (
            TorchScaled(torch.sum),
            TorchScaled(torch.Tensor.int),
        )
        self.dropout = torch.nn.Dropout()

    def forward(self, x):
        x = self.twice(self.twice(x))
        several = self.several(x)
        self.summed(x)
        self.counted(x)
        self.dropout(x)
        return several[0]


class TestWhatCounts:
    """Layers with parameters, in the order in which they end, the first output of the
    first call, one row a sample."""

    NAMES = ("twice", "several/inner", "several")

    def test_in_jax(self):
        x, model = jnp.ones((4, 2)), Odd()
        variables = model.init(jax.random.key(0), x)
        with layer_outputs.capture(4) as outputs:
            model.apply(variables, x)
        dense = variables["params"]["twice"]
        assert tuple(outputs) == self.NAMES
        np.testing.assert_array_equal(
            outputs["twice"], x @ dense["kernel"] + dense["bias"][None]
        )
        assert outputs["several"].shape == (4, 3)

    def test_in_torch(self):
        x, model = torch.ones(4, 2), TorchOdd()
        with torch_outputs.capture(model, 4) as passes:
            model(x)
            model(2 * x)
        assert [tuple(outputs) for outputs in passes] == [self.NAMES] * 2
        for factor, outputs in enumerate(passes, 1):
            assert torch.equal(outputs["twice"], model.twice(factor * x))
            assert outputs["several"].shape == (4, 3)

    def test_another_number_of_rows_is_no_output(self):
        x, model = torch.ones(4, 2), TorchOdd()
        with torch_outputs.capture(model, 3) as passes:
            model(x)
        variables = Odd().init(jax.random.key(0), jnp.ones((4, 2)))
        with layer_outputs.capture(3) as ours:
            Odd().apply(variables, jnp.ones((4, 2)))
        assert (dict(ours), passes) == ({}, [{}])


class TestAfterwards:
    def test_jax_is_left_as_it_was(self):
        with layer_outputs.capture(4) as outputs:
            pass
        Odd().init(jax.random.key(0), jnp.ones((4, 2)))
        assert not outputs

    def test_torch_is_left_as_it_was(self):
        model = TorchOdd()
        with (
            pytest.raises(RuntimeError, match="cannot be multiplied"),
            torch_outputs.capture(model, 4) as passes,
        ):
            model(torch.ones(4, 3))
        model(torch.ones(4, 2))
        assert passes == [{}]
        assert not any(
            layer._forward_hooks or layer._forward_pre_hooks
            for layer in model.modules()
        )

    def test_what_is_captured_is_a_copy(self):
        """A later layer may work in place."""
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(inplace=True))
        torch.nn.init.ones_(model[0].weight)
        with torch_outputs.capture(model, 4) as passes:
            model(-torch.ones(4, 2))
        assert torch.equal(passes[0]["0"], model[0](-torch.ones(4, 2)))
        assert (passes[0]["0"] < 0).any()


class TestJoinRows:
    def test_devices_follow_each_other_and_padding_goes(self):
        rows = jnp.arange(12, dtype=jnp.float16).reshape(2, 3, 2)
        joined = recording.join_rows({"a": rows}, 5)
        np.testing.assert_array_equal(
            joined["a"], np.arange(10, dtype=np.float32).reshape(5, 2), strict=True
        )

    @pytest.mark.parametrize(
        ("dtype", "kept"),
        [("bfloat16", np.float32), ("float32", np.float32), ("float64", np.float64)],
    )
    def test_formats(self, dtype, kept):
        with jax.enable_x64(True):
            third = jnp.full((1, 1, 1), 1 / 3, dtype)
            rows = recording.join_rows({"a": third}, 1)["a"]
        np.testing.assert_array_equal(
            rows, np.asarray(third)[0].astype(kept), strict=True
        )
