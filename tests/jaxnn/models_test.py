"""Tests of jaxnn/models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import models
from jaxnn.dropout import dropout, mask_source
from jaxnn.experiment.catalogue import MODELS
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment

EPS = np.finfo(np.float32).eps
MLP = Experiment(
    model="mlp", hidden_sizes=(8, 4), dropout_rates=(0.5, 0.25), activation="relu"
)
X = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)

IMAGE, SERIES, TEXT = (
    Signature((8, 8, 1), 3),
    Signature((6, 2), 3),
    Signature((6,), 7, 7, True),
)
CHOICES = {
    "linear": (dict(), IMAGE),
    "perceptron": (dict(), IMAGE),
    "logistic": (dict(), IMAGE),
    "mlp": (dict(hidden_sizes=(4,), normalization="batch"), IMAGE),
    "cnn": (dict(channels=(4, 4), hidden_sizes=(4,), normalization="layer"), IMAGE),
    "resnet": (dict(resnet_depth=20), IMAGE),
    "rnn": (dict(hidden_sizes=(4, 4)), SERIES),
    "lstm": (dict(hidden_sizes=(4,)), TEXT),
    "gru": (dict(hidden_sizes=(4,)), SERIES),
    "transformer": (dict(width=8, num_heads=2), TEXT),
    "transformer_encoder": (dict(width=8, num_heads=2), IMAGE),
}


def start(experiment, num_outputs=3):
    model = models.build(experiment, Signature(X.shape[1:], num_outputs))
    return model, jax.jit(model.init)(jax.random.key(0), X)["params"]


def by_hand(params, hidden, masks):
    """The formula in float64: each hidden layer, its mask already divided by the
    probability of keeping."""
    x, params = (
        X.astype(np.float64),
        jax.tree.map(lambda array: np.asarray(array, np.float64), params),
    )
    for layer, mask in zip(hidden, masks):
        x = np.maximum(x @ params[layer]["kernel"] + params[layer]["bias"], 0) * mask
    return x @ params["output"]["kernel"] + params["output"]["bias"]


def test_residual_adds_where_widths_agree():
    experiment = MLP.replace(hidden_sizes=(5, 4, 4), dropout_rates=(), residual=True)
    model, tree = start(experiment)
    params = jax.tree.map(np.float64, tree)
    x = np.float64(X)
    for layer in ("hidden_0", "hidden_1", "hidden_2"):
        hidden = np.maximum(x @ params[layer]["kernel"] + params[layer]["bias"], 0)
        x = hidden + x if layer != "hidden_1" else hidden
    wanted = x @ params["output"]["kernel"] + params["output"]["bias"]
    outputs = model.apply({"params": tree}, X)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-6)


class TestBuild:
    @pytest.mark.parametrize(
        ("experiment", "shapes"),
        [
            (Experiment(), {"output/kernel": (5, 3), "output/bias": (3,)}),
            (
                MLP,
                {
                    "hidden_0/kernel": (5, 8),
                    "hidden_0/bias": (8,),
                    "hidden_1/kernel": (8, 4),
                    "hidden_1/bias": (4,),
                    "output/kernel": (4, 3),
                    "output/bias": (3,),
                },
            ),
        ],
        ids=["linear", "mlp"],
    )
    def test_names_and_shapes(self, experiment, shapes):
        _, params = start(experiment)
        assert {
            name: array.shape for name, array in trace.flatten(params).items()
        } == shapes

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    @pytest.mark.parametrize("name", MODELS)
    def test_every_flag_choice_is_built_and_trains(self, name, dtype):
        """Outputs in the shape that the signature promises and the format of the
        inputs, in and outside training."""
        changes, signature = CHOICES[name]
        model = models.build(Experiment(model=name, **changes), signature)
        x = jnp.zeros(
            (2, *signature.input_shape), "int32" if signature.num_tokens else dtype
        )
        example = x.astype("int32" if signature.num_tokens else "float32")
        variables = jax.eval_shape(model.init, jax.random.key(0), example)
        params = jax.tree.map(
            lambda p: jax.ShapeDtypeStruct(p.shape, dtype), variables["params"]
        )
        steps = signature.input_shape[:1] if signature.per_step else ()
        for masks in (None, mask_source(0, 0, 0)):
            outputs, stats = jax.eval_shape(
                lambda v, x, m=masks: model.apply(v, x, m, mutable=["batch_stats"]),
                {**variables, "params": params},
                x,
            )
            assert (outputs.shape, outputs.dtype) == (
                (2, *steps, signature.num_outputs),
                dtype,
            )
            assert {leaf.dtype.name for leaf in jax.tree.leaves(stats)} <= {"float32"}

    def test_every_family_is_built(self):
        assert models.FAMILIES.keys() == {model.family for model in MODELS.values()}

    @pytest.mark.parametrize("experiment", [Experiment(), MLP], ids=["linear", "mlp"])
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_computes_in_the_format_it_is_given(self, experiment, dtype):
        model, params = start(experiment)
        params = jax.tree.map(lambda x: x.astype(dtype), params)
        assert (
            model.apply({"params": params}, X.astype(dtype), mask_source(0, 0, 0)).dtype
            == dtype
        )

    def test_initializer_and_activation_are_the_experiments(self):
        _, params = start(MLP.replace(initializer="zeros"))
        assert not any(array.any() for array in jax.tree.leaves(params))
        model, params = start(MLP.replace(activation="linear", dropout_rates=()))
        assert (
            model.apply({"params": params}, X) + model.apply({"params": params}, -X)
            == 0
        ).all()


class TestLinear:
    def test_is_the_formula(self):
        """A sum of five products: within 5 ulps of the largest partial sum."""
        model, params = start(Experiment(initializer="torch_default"))
        expected = by_hand(params, [], [])
        assert np.abs(expected).max() < 3
        np.testing.assert_allclose(
            model.apply({"params": params}, X), expected, rtol=0, atol=5 * 3 * EPS
        )

    def test_masks_are_not_used(self):
        model, params = start(Experiment())
        np.testing.assert_array_equal(
            model.apply({"params": params}, X, mask_source(0, 0, 0)),
            model.apply({"params": params}, X),
        )


class TestMLP:
    def test_without_masks_nothing_is_dropped(self):
        """Three sums of at most eight products of size 3: within 32 ulps of 1."""
        model, params = start(MLP.replace(initializer="torch_default"))
        expected = by_hand(params, ["hidden_0", "hidden_1"], [1, 1])
        assert np.abs(expected).max() < 3
        np.testing.assert_allclose(
            model.apply({"params": params}, X), expected, rtol=0, atol=32 * EPS
        )

    def test_each_hidden_layer_has_its_own_mask_and_rate(self):
        model, params = start(MLP)
        source = mask_source(3, 5, 0)
        masks = [
            np.asarray(dropout(jnp.ones((6, units)), rate, layer, source))
            for layer, (units, rate) in enumerate([(8, 0.5), (4, 0.25)])
        ]
        expected = by_hand(params, ["hidden_0", "hidden_1"], masks)
        assert 1 < np.abs(expected).max() < 8
        np.testing.assert_allclose(
            model.apply({"params": params}, X, source),
            expected,
            rtol=0,
            atol=8 * 8 * EPS,
        )
