"""Tests of jaxnn/models/cnn.py: against the same formulas in torch, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from jaxnn.activations import tanh
from jaxnn.dropout import dropout, mask_source
from jaxnn.experiment.files import trace
from jaxnn.initializers import INITIALIZERS
from jaxnn.models.cnn import CNN

X = np.random.default_rng(0).standard_normal((4, 7, 6, 2))
HEADS = {"max": functional.max_pool2d, "average": functional.avg_pool2d}


def network(**changes):
    attributes = dict(
        channels=(3, 4),
        kernel_size=3,
        pool="max",
        hidden_sizes=(5,),
        num_outputs=2,
        activation=tanh,
        normalization="none",
        dropout_rates=(),
        initializer=INITIALIZERS["torch_default"],
    )
    return CNN(**{**attributes, **changes})


def start(model, x=X):
    """Parameters and running statistics in (1/4, 3/4), drawn without compiling
    anything."""
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, jnp.float32)
    )
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: draw.uniform(0.25, 0.75, leaf.shape), shapes)


def by_torch(variables, model, x, masks):
    """The network in float64; `masks` of the hidden layers, already divided by the
    probability of keeping."""
    params = {
        name: torch.tensor(array)
        for name, array in trace.flatten(variables["params"]).items()
    }
    x = torch.tensor(np.moveaxis(x, -1, 1).copy())
    for layer in range(len(model.channels)):
        kernel = params[f"conv_{layer}/kernel"].permute(3, 2, 0, 1)
        x = functional.conv2d(
            x, kernel, params[f"conv_{layer}/bias"], padding=model.kernel_size // 2
        )
        x = torch.tanh(
            normalize_by_torch(
                model.normalization, params, variables, f"norm_{layer}", x
            )
        )
        x = HEADS[model.pool](x, 2) if min(x.shape[2:]) > 1 else x
    x = x.permute(0, 2, 3, 1).flatten(1)
    for layer in range(len(model.hidden_sizes)):
        x = x @ params[f"hidden_{layer}/kernel"] + params[f"hidden_{layer}/bias"]
        x = torch.tanh(
            normalize_by_torch(
                model.normalization, params, variables, f"hidden_norm_{layer}", x
            )
        )
        x = x * torch.tensor(masks[layer])
    return (x @ params["output/kernel"] + params["output/bias"]).numpy()


def normalize_by_torch(kind, params, variables, name, x):
    """Batch normalization by the running statistics."""
    if kind == "none":
        return x
    scale, bias = params[f"{name}/scale"], params[f"{name}/bias"]
    if kind == "layer":
        return functional.layer_norm(
            x.movedim(1, -1), scale.shape, scale, bias
        ).movedim(-1, 1)
    stats = {
        which: torch.tensor(array)
        for which, array in variables["batch_stats"][name].items()
    }
    return functional.batch_norm(x, stats["mean"], stats["var"], scale, bias)


def run(model, variables, x=X, masks=None):
    with jax.enable_x64(True):
        return np.asarray(
            jax.jit(lambda variables, x: model.apply(variables, x, masks))(variables, x)
        )


def assert_close(actual, expected):
    """Four layers of at most 27 products below 8, none of which magnifies an error more
    than 27-fold (12 bits)."""
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=2**12 * 8 * np.finfo(np.float64).eps
    )


class TestCNN:
    @pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
    @pytest.mark.parametrize("pool", ["max", "average"])
    def test_evaluation_is_torchs(self, normalization, pool):
        """7 x 6 pixels shrink to 3 x 3 and 1 x 1."""
        model = network(normalization=normalization, pool=pool)
        variables = start(model)
        assert_close(run(model, variables), by_torch(variables, model, X, [1]))

    def test_pooling_stops_at_one_pixel(self):
        model = network(channels=(3, 4, 2), kernel_size=5)
        variables = start(model)
        assert variables["params"]["hidden_0"]["kernel"].shape == (2, 5)
        assert_close(run(model, variables), by_torch(variables, model, X, [1]))

    def test_pooling_stops_at_one_column(self):
        """4 x 2 pixels shrink to 2 x 1 and stay."""
        model, x = network(), X[:, :4, :2]
        variables = start(model, x)
        assert variables["params"]["hidden_0"]["kernel"].shape == (2 * 1 * 4, 5)
        assert_close(run(model, variables, x), by_torch(variables, model, x, [1]))

    def test_each_hidden_layer_has_its_own_mask_and_rate(self):
        model, source = (
            network(hidden_sizes=(5, 6), dropout_rates=(0.5, 0.25)),
            mask_source(3, 5, 0),
        )
        masks = [
            (np.asarray(dropout(jnp.ones((4, units)), rate, layer, source)) > 0)
            / (1 - rate)
            for layer, (units, rate) in enumerate([(5, 0.5), (6, 0.25)])
        ]
        variables = start(model)
        assert_close(
            run(model, variables, masks=source), by_torch(variables, model, X, masks)
        )

    def test_names_and_shapes(self):
        shapes = {
            name: array.shape
            for name, array in trace.flatten(
                start(network(normalization="batch"))["params"]
            ).items()
        }
        norms = {
            f"{name}/{leaf}": (size,)
            for name, size in (("norm_0", 3), ("norm_1", 4), ("hidden_norm_0", 5))
            for leaf in ("scale", "bias")
        }
        assert shapes == norms | {
            "conv_0/kernel": (3, 3, 2, 3),
            "conv_0/bias": (3,),
            "conv_1/kernel": (3, 3, 3, 4),
            "conv_1/bias": (4,),
            "hidden_0/kernel": (4, 5),
            "hidden_0/bias": (5,),
            "output/kernel": (5, 2),
            "output/bias": (2,),
        }

    def test_both_algorithms_agree(self):
        variables = start(network())
        assert_close(
            run(network(algorithm="direct"), variables),
            run(network(algorithm="patches"), variables),
        )

    @pytest.mark.parametrize("normalization", ["batch", "layer"])
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_computes_in_the_format_it_is_given(self, dtype, normalization):
        model = network(normalization=normalization, dropout_rates=(0.5,))
        variables = start(model)
        variables = jax.tree.map(jnp.float32, variables) | {
            "params": jax.tree.map(lambda x: jnp.asarray(x, dtype), variables["params"])
        }
        outputs = jax.eval_shape(
            lambda: model.apply(variables, jnp.asarray(X, dtype), mask_source(0, 0, 0))
        )
        assert outputs.dtype == dtype
