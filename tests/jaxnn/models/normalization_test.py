"""Tests of jaxnn/models/normalization.py: against torch in float64, padded rows, any
number of devices."""

import functools
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from jaxnn.dropout import mask_source
from jaxnn.models import normalization
from jaxnn.models.normalization import BatchNorm, LayerNorm, norm_layer

EPS = np.finfo(np.float64).eps
SHAPES = [(6, 3), (4, 3, 2, 3), (4, 5, 3)]
SCALE, BIAS = np.array([0.5, -2.0, 1.5]), np.array([1.0, 0.25, -3.0])
PARAMS = {"scale": SCALE, "bias": BIAS}
ULPS = 64 * EPS
"""Sums of at most 24 numbers below 8 and a dozen operations more: well within 64
roundings of 8 or the result."""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def start(dtype=np.float64):
    return {"mean": np.zeros(3, dtype), "var": np.ones(3, dtype)}


def masks(weights=None):
    return mask_source(0, 0, 0, weights)


@functools.partial(jax.jit, static_argnums=(5, 6))
def train(
    params, stats, x, cotangent, weights=None, axis_name=None, sync_batch_norm=True
):
    """(y, statistics, gradients of the sum of y * cotangent by params and x) in
    training."""

    def forward(params, x):
        variables, source = (
            {"params": params, "batch_stats": stats},
            mask_source(0, 0, 0, weights, axis_name, sync_batch_norm),
        )
        y, updated = BatchNorm().apply(variables, x, source, mutable=["batch_stats"])
        return jnp.sum(y * cotangent), (y, updated["batch_stats"])

    (_, (y, stats)), gradients = jax.value_and_grad(forward, (0, 1), has_aux=True)(
        params, x
    )
    return y, stats, gradients


def torch_layer(ndim):
    layer = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[
        ndim
    ](3).double()
    layer.weight.data, layer.bias.data = torch.tensor(SCALE), torch.tensor(BIAS)
    return layer


def channels_first(x):
    return torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=ULPS, atol=8 * ULPS)


class TestBatchNorm:
    def test_starts_as_the_standardized_input(self):
        variables = jax.jit(BatchNorm().init)(
            jax.random.key(0), np.zeros((1, 3), np.float32)
        )
        expected = {
            "params": {"scale": [1, 1, 1], "bias": [0, 0, 0]},
            "batch_stats": {"mean": [0, 0, 0], "var": [1, 1, 1]},
        }
        assert jax.tree.map(lambda x: x.tolist(), variables) == expected
        assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype(np.float32)}

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_three_steps_of_training_then_evaluation_are_torchs(self, shape):
        layer, stats = torch_layer(len(shape)), start()
        with jax.enable_x64(True):
            for step in range(3):
                x, cotangent = (
                    1 + 2 * normal(*shape, seed=step),
                    normal(*shape, seed=9 - step),
                )
                y, stats, (by_params, by_x) = train(PARAMS, stats, x, cotangent)
                layer.zero_grad()
                image = channels_first(x)
                theirs = layer(image)
                theirs.backward(channels_first(cotangent).detach())
                assert_close(y, channels_last(theirs))
                assert_close(by_x, channels_last(image.grad))
                assert_close(by_params["scale"], layer.weight.grad)
                assert_close(by_params["bias"], layer.bias.grad)
                assert_close(stats["mean"], layer.running_mean)
                assert_close(stats["var"], layer.running_var)
            y = BatchNorm().apply({"params": PARAMS, "batch_stats": stats}, x)
        assert_close(y, channels_last(layer.eval()(channels_first(x))))

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_padded_rows_do_not_count(self, shape):
        x, cotangent = normal(*shape), normal(*shape, seed=1)
        weights = np.ones(len(x) + 2, np.float32)
        weights[[1, -1]] = 0
        real = weights > 0
        padded_x, padded_cotangent = (
            100 + normal(len(x) + 2, *shape[1:], seed=2),
            np.zeros((len(x) + 2, *shape[1:])),
        )
        padded_x[real], padded_cotangent[real] = x, cotangent
        with jax.enable_x64(True):
            y, stats, (by_params, by_x) = train(PARAMS, start(), x, cotangent)
            padded_y, padded_stats, (padded_by_params, padded_by_x) = train(
                PARAMS, start(), padded_x, padded_cotangent, weights
            )
        assert_close(padded_y[real], y)
        assert_close(padded_by_x[real], by_x)
        assert not padded_by_x[~real].any()
        for name in ("mean", "var"):
            assert_close(padded_stats[name], stats[name])
        for name in PARAMS:
            assert_close(padded_by_params[name], by_params[name])

    def test_a_part_of_padding_alone_changes_nothing(self):
        with jax.enable_x64(True):
            y, stats, gradients = train(
                PARAMS, start(), normal(4, 3), np.zeros((4, 3)), np.zeros(4, np.float32)
            )
        assert np.isfinite(y).all()
        assert stats["mean"].tolist() == [0, 0, 0]
        assert stats["var"].tolist() == [1, 1, 1]
        assert not any(g.any() for g in jax.tree.leaves(gradients))

    def test_padding_alone_does_not_overflow(self):
        """500 over the root of a variance of 0 and eps would be beyond float16, and no
        number once weighed by 0."""
        x, params = (
            jnp.full((4, 3), 500, jnp.float16),
            jax.tree.map(jnp.float16, PARAMS),
        )
        y, _, gradients = train(
            params,
            start(np.float32),
            x,
            jnp.zeros((4, 3), jnp.float16),
            np.zeros(4, np.float32),
        )
        assert np.isfinite(y).all()
        assert not any(g.any() for g in jax.tree.leaves(gradients))

    def test_one_value_a_channel(self):
        with jax.enable_x64(True):
            y, stats, _ = train(PARAMS, start(), np.full((1, 3), 5.0), np.zeros((1, 3)))
        np.testing.assert_array_equal(y, [BIAS])
        np.testing.assert_array_equal(stats["mean"], [0.5] * 3)
        np.testing.assert_array_equal(stats["var"], [0.9] * 3)

    def test_a_large_mean_does_not_cancel(self):
        """E[x^2] - E[x]^2 of 4096 +- 1/4 in float32 would be wrong by 1; x, mean and
        deviations are exact here."""
        x = np.repeat(4096 + np.array([[0.25], [-0.25]], np.float32), 3, axis=1)
        params = {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}
        y, stats, _ = train(params, start(np.float32), x, np.zeros_like(x))
        np.testing.assert_allclose(
            stats["var"], 0.9 + 0.1 * 0.125, rtol=4 * np.finfo(np.float32).eps
        )
        expected = np.array([[1.0], [-1.0]]) * 0.25 / np.sqrt(0.0625 + 1e-5)
        np.testing.assert_allclose(
            y, np.repeat(expected, 3, axis=1), rtol=4 * np.finfo(np.float32).eps
        )

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_half_precision_keeps_its_statistics_in_float32(self, dtype):
        """The mean of 1 and 1 + 2^-7 needs more digits than bfloat16 has, 300 squared
        more range than float16."""
        params = jax.tree.map(lambda p: jnp.asarray(p, dtype), PARAMS)
        x = jnp.asarray([[1, 300, 0], [1 + 2**-7, -300, 0]], dtype)
        y, stats, _ = train(params, start(np.float32), x, jnp.zeros((2, 3), dtype))
        assert y.dtype == dtype
        assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
        expected = (
            [0.1 * (1 + 2**-8), 0, 0],
            [0.9 + 0.1 * 2**-15, 0.9 + 0.1 * 180000, 0.9],
        )
        np.testing.assert_allclose(
            stats["mean"], expected[0], rtol=4 * np.finfo(np.float32).eps
        )
        np.testing.assert_allclose(
            stats["var"], expected[1], rtol=4 * np.finfo(np.float32).eps
        )

    def test_statistics_stay_where_they_may_not_change(self):
        variables = {
            "params": jax.tree.map(np.float32, PARAMS),
            "batch_stats": start(np.float32),
        }
        x = normal(4, 3).astype(np.float32)
        y = BatchNorm().apply(variables, x, masks())
        expected, _ = BatchNorm().apply(variables, x, masks(), mutable=["batch_stats"])
        np.testing.assert_array_equal(y, expected)


DEVICES = """
import jax, numpy as np
import jax.numpy as jnp
from jaxnn.dropout import mask_source
from jaxnn.models.normalization import BatchNorm

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
draws = (np.random.default_rng(seed) for seed in (0, 1))
x, cotangent = (draw.standard_normal((8, 3, 2)) for draw in draws)
weights = np.array([1, 1, 1, 0, 1, 1, 0, 0], np.float32)
cotangent *= weights[:, None, None]
variables = {"params": {"scale": np.array([0.5, 2.0]), "bias": np.array([1.0, 3.0])},
             "batch_stats": {"mean": np.zeros(2), "var": np.ones(2)}}

def train(x, cotangent, weights):
    def objective(params, x):
        masks = mask_source(0, 0, 0, weights, "devices")
        given = {**variables, "params": params}
        y, updated = BatchNorm().apply(given, x, masks, mutable=["batch_stats"])
        return jnp.sum(y * cotangent), (y, updated["batch_stats"])
    gradients = jax.value_and_grad(objective, (0, 1), has_aux=True)
    (_, (y, stats)), (by_params, by_x) = gradients(variables["params"], x)
    return (y, by_x), (stats, jax.lax.psum(by_params, "devices"))

def run(count):
    arrays = (x, cotangent, weights)
    split = [array.reshape(count, 8 // count, *array.shape[1:]) for array in arrays]
    mapped = jax.pmap(train, "devices", devices=jax.devices()[:count])
    rows, replicated = mapped(*split)
    for leaf in jax.tree.leaves(replicated):
        first = np.broadcast_to(np.asarray(leaf)[:1], leaf.shape)
        np.testing.assert_array_equal(leaf, first)
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], replicated)
    return [np.asarray(array).reshape(8, 3, 2) for array in rows], first

one, four = run(1), run(4)
# Float64 sums of at most 24 numbers below 8, added in another order: 64 ulps of 8.
atol = 8 * 64 * np.finfo(float).eps
jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), one, four
)
"""


class TestNormalizeFormula:
    def test_gradient_is_the_difference_quotient(self):
        """Of statistics and formula, which backpropagation computes twice."""

        def standardized(x, scale, bias):
            mean, var, _ = normalization.batch_statistics(x, masks())
            return normalization.normalize(x, mean, var, scale, bias)

        with jax.enable_x64(True):
            arguments = (jnp.asarray(normal(4, 2, 3)), SCALE, BIAS)
            check_grads(standardized, arguments, 1, modes=["rev"], rtol=1e-6, atol=1e-6)


class TestDevices:
    def test_four_devices_are_one(self):
        """One device has padding alone: rows 6 and 7."""
        env = {
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
        }
        done = subprocess.run(
            [sys.executable, "-c", DEVICES], capture_output=True, text=True, env=env
        )
        assert done.returncode == 0, done.stderr


class TestOwnStatistics:
    def test_a_device_has_what_it_would_have_alone(self):
        """Of three devices, one with a padded row and one with padding alone."""
        x, cotangent = 1 + 2 * normal(3, 4, 2, 3), normal(3, 4, 2, 3, seed=1)
        weights = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]], np.float32)
        before = {"mean": np.array([1.0, 2.0, 3.0]), "var": np.array([4.0, 5.0, 6.0])}
        with jax.enable_x64(True):
            y, stats, grads = jax.vmap(
                lambda *rows: train(PARAMS, before, *rows, "devices", False),
                axis_name="devices",
            )(x, cotangent, weights)
            alone = [
                train(PARAMS, before, *rows) for rows in zip(x, cotangent, weights)
            ]
        for device, (expected, _, expected_grads) in enumerate(alone):
            assert_close(y[device], expected)
            jax.tree.map(
                lambda ours, theirs, number=device: assert_close(ours[number], theirs),
                grads,
                expected_grads,
            )
        for name in before:
            assert_close(
                stats[name],
                np.broadcast_to(
                    np.mean([own[name] for _, own, _ in alone], axis=0), (3, 3)
                ),
            )
        assert np.isfinite(y).all()


class TestLayerNorm:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_value_and_gradients_are_torchs(self, shape):
        x, cotangent = 1 + 2 * normal(*shape), normal(*shape, seed=1)
        layer, tensor = (
            torch.nn.LayerNorm(3).double(),
            torch.tensor(x, requires_grad=True),
        )
        layer.weight.data, layer.bias.data = torch.tensor(SCALE), torch.tensor(BIAS)
        theirs = layer(tensor)
        theirs.backward(torch.tensor(cotangent))
        with jax.enable_x64(True):
            y, pullback = jax.vjp(
                lambda p, x: LayerNorm().apply({"params": p}, x), PARAMS, jnp.asarray(x)
            )
            by_params, by_x = pullback(jnp.asarray(cotangent))
        assert_close(y, theirs.detach())
        assert_close(by_x, tensor.grad)
        assert_close(by_params["scale"], layer.weight.grad)
        assert_close(by_params["bias"], layer.bias.grad)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_computes_in_the_format_it_is_given(self, dtype):
        """Deviations of +-300 are 1 once divided by their root mean square; their
        squares are beyond float16."""
        params = {"scale": jnp.ones(2, dtype), "bias": jnp.zeros(2, dtype)}
        y = LayerNorm().apply({"params": params}, jnp.asarray([[300, -300]], dtype))
        assert y.dtype == dtype
        np.testing.assert_allclose(
            y.astype(jnp.float32), [[1, -1]], rtol=float(jnp.finfo(dtype).eps)
        )


class Network(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, masks=None):
        return norm_layer(self.kind, "norm_0")(x, masks)


class TestNormalize:
    @pytest.mark.parametrize(
        ("kind", "collections"),
        [
            ("none", {}),
            ("layer", {"params": {"norm_0": {"scale", "bias"}}}),
            (
                "batch",
                {
                    "params": {"norm_0": {"scale", "bias"}},
                    "batch_stats": {"norm_0": {"mean", "var"}},
                },
            ),
        ],
    )
    def test_names(self, kind, collections):
        variables = jax.eval_shape(
            Network(kind).init, jax.random.key(0), np.zeros((1, 3), np.float32)
        )
        assert {
            c: {name: set(leaves) for name, leaves in layers.items()}
            for c, layers in variables.items()
        } == collections
        assert kind in normalization.NORMALIZATIONS

    def test_none_is_the_input(self):
        x = normal(2, 3).astype(np.float32)
        assert Network("none").apply({}, x) is x
