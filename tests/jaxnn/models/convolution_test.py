"""Tests of jaxnn/models/convolution.py: against torch in float64, and both algorithms
against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.initializers import INITIALIZERS
from jaxnn.models import convolution, patches
from jaxnn.models.convolution import (
    Conv,
    average_pool,
    conv,
    global_average_pool,
    max_pool,
)

EPS = np.finfo(np.float64).eps


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def to_torch(x):
    """[batch, height, width, channels] -> torch's [batch, channels, height, width],
    with a gradient."""
    return torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)


def from_torch(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def value_and_pullback(function, cotangent, *arguments):
    """The function's value, and the gradients of its product with `cotangent(shape)`,
    in float64."""

    def both(*arguments):
        y, pullback = jax.vjp(function, *arguments)
        return y, pullback(jnp.asarray(cotangent(y.shape)))

    with jax.enable_x64(True):
        y, gradients = jax.jit(both)(*map(jnp.asarray, arguments))
        return np.asarray(y), [np.asarray(g) for g in gradients]


def torch_conv(x, kernel, stride, padding):
    """(value, gradients) of the sum of y * normal(y.shape), y being torch's
    convolution."""
    image, weight = (
        to_torch(x),
        torch.tensor(kernel.transpose(3, 2, 0, 1).copy(), requires_grad=True),
    )
    y = torch.nn.functional.conv2d(image, weight, stride=stride, padding=padding)
    y.backward(to_torch(normal(*from_torch(y).shape)))
    return from_torch(y), [
        from_torch(image.grad),
        weight.grad.numpy().transpose(2, 3, 1, 0),
    ]


def assert_same_sums(actual, expected, terms):
    """Sums of `terms` products of normal numbers, below 25 each: each addition rounds
    by half an ulp of the sum."""
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=25 * terms * EPS)


def assert_is_torchs_conv(x, kernel, stride, padding, algorithm):
    y, (dx, dw) = value_and_pullback(
        lambda x, k: conv(x, k, stride, padding, algorithm),
        lambda s: normal(*s),
        x,
        kernel,
    )
    expected, (expected_dx, expected_dw) = torch_conv(x, kernel, stride, padding)
    assert_same_sums(y, expected, kernel[..., 0].size)
    assert_same_sums(dx, expected_dx, kernel[..., 0, :].size)
    assert_same_sums(dw, expected_dw, y[..., 0].size)


class TestConv:
    @pytest.mark.parametrize("algorithm", convolution.ALGORITHMS)
    @pytest.mark.parametrize(
        ("height", "width", "kernel", "stride", "padding"),
        [
            (5, 4, (3, 3), 1, 1),
            (5, 6, (3, 3), 2, 1),
            (6, 5, (1, 1), 2, 0),
            (7, 7, (7, 7), 2, 3),
            (1, 2, (3, 3), 2, 1),
            (5, 6, (2, 3), 1, 0),
            (9, 8, (5, 5), 3, 2),
        ],
    )
    def test_value_and_gradients_are_torchs(
        self, height, width, kernel, stride, padding, algorithm
    ):
        assert_is_torchs_conv(
            normal(4, height, width, 3),
            normal(*kernel, 3, 2, seed=1),
            stride,
            padding,
            algorithm,
        )

    @settings(deadline=None, max_examples=8)
    @given(st.data())
    def test_any_shape(self, data):
        size, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
        padding = data.draw(st.integers(0, size - 1))
        height, width = (
            data.draw(st.integers(max(size - 2 * padding, 1), 7)) for _ in range(2)
        )
        batch, inputs, outputs = (data.draw(st.integers(1, 3)) for _ in range(3))
        x, kernel = (
            normal(batch, height, width, inputs),
            normal(size, size, inputs, outputs, seed=1),
        )
        algorithm = data.draw(st.sampled_from(["patches", "cpu"]))
        assert_is_torchs_conv(x, kernel, stride, padding, algorithm)

    @pytest.mark.parametrize(
        "cached_bytes", [1, 5 * 4 * 27 * 8, 2 * 5 * 4 * 27 * 8, 5 * 5 * 4 * 27 * 8]
    )
    @pytest.mark.parametrize("algorithm", ["patches", "cpu"])
    def test_part_by_part_is_the_whole(self, algorithm, cached_bytes, monkeypatch):
        """5 x 4 positions of 27 float64 each; 6 examples by 1, 1, 2 and 3 at a time."""
        monkeypatch.setattr(patches, "CACHED_BYTES", cached_bytes)
        assert_is_torchs_conv(
            normal(6, 5, 4, 3), normal(3, 3, 3, 2, seed=1), 1, 1, algorithm
        )

    def test_rows_at_a_time(self, monkeypatch):
        monkeypatch.setattr(patches, "CACHED_BYTES", 5 * 4 * 27 * 4 * 4)
        shapes = [
            jax.ShapeDtypeStruct(shape, jnp.float32)
            for shape in ((6, 5, 4, 3), (3, 3, 3, 2))
        ]
        loop = jax.make_jaxpr(lambda x, k: conv(x, k, 1, 1, "patches"))(*shapes)
        assert [
            e.params["length"] for e in loop.eqns if e.primitive.name == "scan"
        ] == [2]  # three of six at a time

    def test_a_kernel_of_other_channels_is_a_fault(self):
        with pytest.raises(AssertionError, match="assert_equal"):
            convolution.conv(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 2, 5)))

    @pytest.mark.parametrize(
        ("dtype", "on_cpu"),
        [("float32", "cpu"), ("float16", "patches"), ("bfloat16", "patches")],
    )
    def test_auto_depends_on_backend_and_dtype(self, dtype, on_cpu):
        def operations(algorithm):
            image = jax.ShapeDtypeStruct((1, 4, 4, 1), dtype)
            kernel = jax.ShapeDtypeStruct((3, 3, 1, 1), dtype)
            jaxpr = jax.make_jaxpr(lambda x, k: conv(x, k, algorithm=algorithm))(
                image, kernel
            )
            return {equation.primitive.name for equation in jaxpr.eqns}

        assert "conv_general_dilated" in operations("direct")
        assert "custom_vjp_call" in operations("cpu")
        assert "conv_general_dilated" not in operations("patches")
        assert operations("auto") == operations(
            on_cpu if jax.default_backend() == "cpu" else "direct"
        )


class TestConvModule:
    @pytest.mark.parametrize("use_bias", [True, False])
    def test_names_shapes_and_bounds(self, use_bias):
        """torch_default draws from U(-b, b), b = 1 / sqrt(inputs of a unit)."""
        layer = Conv(64, 3, INITIALIZERS["torch_default"], use_bias=use_bias)
        params = jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))[
            "params"
        ]
        shapes = (
            {"kernel": (3, 3, 2, 64), "bias": (64,)}
            if use_bias
            else {"kernel": (3, 3, 2, 64)}
        )
        assert {name: p.shape for name, p in params.items()} == shapes
        for p in params.values():
            assert 0.9 * 18**-0.5 < np.abs(p).max() <= 18**-0.5

    @pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (7, 2)])
    def test_is_torchs_layer(self, size, stride):
        kernel, bias, x = (
            normal(size, size, 3, 2),
            normal(2, seed=1),
            normal(2, 8, 7, 3, seed=2),
        )
        theirs = torch.nn.functional.conv2d(
            to_torch(x),
            torch.tensor(kernel.transpose(3, 2, 0, 1).copy()),
            torch.tensor(bias),
            stride,
            (size - 1) // 2,
        )
        with jax.enable_x64(True):
            layer = Conv(2, size, INITIALIZERS["zeros"], stride)
            ours = np.asarray(
                jax.jit(layer.apply)({"params": {"kernel": kernel, "bias": bias}}, x)
            )
        assert_same_sums(ours, from_torch(theirs), kernel[..., 0].size + 1)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_computes_in_the_format_it_is_given(self, dtype):
        params = {"kernel": jnp.ones((3, 3, 1, 2), dtype), "bias": jnp.ones(2, dtype)}
        y = Conv(2, 3, INITIALIZERS["zeros"]).apply(
            {"params": params}, jnp.ones((1, 3, 3, 1), dtype)
        )
        assert y.dtype == dtype
        np.testing.assert_array_equal(y[0, 1, 1].astype(jnp.float32), [10, 10])


def pooled_by_torch(x, size, stride, padding):
    image = to_torch(x)
    y = torch.nn.functional.max_pool2d(image, size, stride, padding)
    y.backward(to_torch(whole_numbers(from_torch(y).shape)))
    return from_torch(y), from_torch(image.grad)


def whole_numbers(shape):
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape)


class TestMaxPool:
    @pytest.mark.parametrize(
        ("size", "stride", "padding"),
        [(2, None, 0), (3, None, 0), (3, 2, 1), (2, 1, 0)],
    )
    @pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 5)])
    def test_ties_are_torchs(self, size, stride, padding, height, width):
        """Pixels of three values only, so that most windows have ties; every number is
        whole."""
        x = (
            np.random.default_rng(0)
            .integers(-1, 2, (2, height, width, 3))
            .astype(np.float64)
        )
        y, (dx,) = value_and_pullback(
            lambda x: max_pool(x, size, stride, padding), whole_numbers, x
        )
        expected, expected_dx = pooled_by_torch(x, size, stride, padding)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(dx, expected_dx)

    @pytest.mark.parametrize("place", range(4))
    def test_passes_on_what_is_not_a_number(self, place):
        x = np.zeros(4)
        x[place] = np.nan
        assert np.isnan(max_pool(x.reshape(1, 2, 2, 1), 2)).all()


class TestAveragePool:
    @pytest.mark.parametrize(
        ("height", "width", "size"), [(4, 6, 2), (5, 7, 2), (7, 6, 3)]
    )
    def test_is_torchs(self, height, width, size):
        """Means of at most nine numbers below 5; a gradient is one quotient."""
        x = normal(2, height, width, 3)
        y, (dx,) = value_and_pullback(lambda x: average_pool(x, size), whole_numbers, x)
        image = to_torch(x)
        theirs = torch.nn.functional.avg_pool2d(image, size)
        theirs.backward(to_torch(whole_numbers(y.shape)))
        np.testing.assert_allclose(y, from_torch(theirs), rtol=0, atol=9 * 5 * EPS)
        np.testing.assert_allclose(dx, from_torch(image.grad), rtol=2 * EPS, atol=0)

    def test_global(self):
        """Whole numbers, 16 positions: exact."""
        x = whole_numbers((2, 4, 4, 3)).astype(np.float32)
        np.testing.assert_array_equal(
            global_average_pool(x), x.reshape(2, 16, 3).sum(axis=1) / 16
        )

    def test_half_precision_sums_in_float32(self):
        """The sum of 64 times 2048 is beyond float16; the mean is not."""
        x = jnp.full((1, 8, 8, 1), 2048, jnp.float16)
        for y in (global_average_pool(x), average_pool(x, 8)):
            assert y.dtype == jnp.float16
            assert (y == 2048).all()
