"""Tests of jaxnn/activations.py and its twin against float64 formulas and torch's own
functions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special
from torch.nn import functional

import jaxnn.activations
import torch_ref.activations
from jaxnn.experiment import catalogue

NAMES = list(catalogue.ACTIVATIONS)
ELEMENTWISE = [name for name in NAMES if name != "softmax"]
DTYPES = ["float16", "bfloat16", "float32", "float64"]
GRID = np.concatenate(
    [np.linspace(-30, 30, 1201), [-1e4, -100, -1e-30, -0.0, 1e-30, 100, 1e4]]
)
EPS = np.finfo(np.float64).eps
finite = st.floats(
    -1e4, 1e4, allow_subnormal=False
)  # XLA flushes subnormals to zero, torch keeps them


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def in_jax(activation, x, dtype="float64", cotangent=None):
    """Value and vector-Jacobian product as float64, and the format of the value."""

    def both(x, cotangent):
        value, pull = jax.vjp(activation, x)
        return value, *pull(cotangent.astype(value.dtype))

    cotangent = jnp.ones(x.shape) if cotangent is None else jnp.asarray(cotangent)
    value, slope = jax.jit(both)(jnp.asarray(x).astype(dtype), cotangent)
    return (
        np.asarray(value, np.float64),
        np.asarray(slope, np.float64),
        value.dtype.name,
    )


def in_torch(activation, x, dtype="float64", cotangent=None):
    leaf = torch.tensor(x).to(getattr(torch, dtype)).requires_grad_()
    value = activation(leaf)
    value.backward(
        torch.ones_like(value)
        if cotangent is None
        else torch.tensor(cotangent).to(value.dtype)
    )
    return (
        value.detach().double().numpy(),
        leaf.grad.double().numpy(),
        str(value.dtype).removeprefix("torch."),
    )


STACKS = {
    "jax": (jaxnn.activations, in_jax),
    "torch": (torch_ref.activations, in_torch),
}


def rounded(x, dtype):
    """What a format makes of the numbers, in float64."""
    return np.asarray(jnp.asarray(x).astype(dtype), np.float64)


# Each returns value, slope, and the error of each in eps of the format of the
# computation.


def exact_linear(x):
    return x, np.ones_like(x), 0, 0


def exact_step(x):
    return (x >= 0) * 1.0, np.zeros_like(x), 0, 0


def exact_relu(x):
    return np.maximum(x, 0), (x > 0) * 1.0, 0, 0


def exact_leaky_relu(x):
    """alpha and the product are rounded."""
    value, slope = np.where(x > 0, x, 0.01 * x), np.where(x > 0, 1, 0.01)
    return value, slope, abs(value), slope


def exact_sigmoid(x):
    """exp, a sum, a quotient: 4 ulps; s(1 - s) keeps an ulp of 1 where s is near 1."""
    s, negative = special.expit(x), special.expit(-x)
    return s, s * negative, 4 * s, 4 * s * negative + 1


def exact_tanh(x):
    """4 ulps; 1 - t^2 doubles them and keeps them as ulps of 1."""
    slope = 4 * special.expit(2 * x) * special.expit(-2 * x)
    return np.tanh(x), slope, 4 * abs(np.tanh(x)), 9


def exact_gelu(x):
    """erfc and exp amplify an ulp of x / sqrt 2, and of its square, x^2 times."""
    p, bell = special.ndtr(x), x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    factor = 8 + 2 * x * x
    return x * p, p + bell, factor * abs(x) * p, factor * (p + abs(bell))


def exact_gelu_tanh(x):
    """s amplifies its ulps |2u| times, 1 - s keeps an ulp of 1."""
    double = np.sqrt(8 / np.pi) * (x + 0.044715 * x**3)
    s, negative = special.expit(double), special.expit(-double)
    inner = np.sqrt(8 / np.pi) * x * (1 + 0.134145 * x * x)
    factor = 8 + 4 * abs(double)
    error = factor * (s + s * negative * abs(inner))
    error += s * abs(inner) * (abs(double) < 100)
    return x * s, s + inner * s * negative, factor * abs(x) * s, error


EXACT = {name: globals()[f"exact_{name}"] for name in ELEMENTWISE}


class TestRegistry:
    @pytest.mark.parametrize("stack", STACKS)
    def test_names_in_order(self, stack):
        assert list(STACKS[stack][0].ACTIVATIONS) == NAMES

    @pytest.mark.parametrize("stack", STACKS)
    def test_build_sets_the_slope_of_leaky_relu_alone(self, stack):
        module, evaluate = STACKS[stack]
        value, slope, _ = evaluate(
            module.build("leaky_relu", 0.25), np.array([-4.0, 0.0, 2.0])
        )
        np.testing.assert_array_equal(value, [-1, 0, 2])
        np.testing.assert_array_equal(slope, [0.25, 0.25, 1])
        assert all(
            module.build(name, 0.25).__wrapped__ is module.ACTIVATIONS[name]
            for name in NAMES
            if name != "leaky_relu"
        )


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("dtype", DTYPES)
class TestFormats:
    @pytest.mark.parametrize("name", ELEMENTWISE)
    def test_value_and_slope(self, name, dtype, stack):
        """Half an ulp of the format, and the error of the computation in float32 or
        float64; so finite at 1e4."""
        module, evaluate = STACKS[stack]
        x = rounded(GRID, dtype)
        value, slope, kept = evaluate(module.ACTIVATIONS[name], x, dtype)
        wanted_value, wanted_slope, value_error, slope_error = EXACT[name](x)
        eps, half, floor = precision(dtype, x)
        assert kept == dtype
        np.testing.assert_array_less(
            abs(value - wanted_value),
            eps * value_error + half * abs(wanted_value) + floor,
        )
        np.testing.assert_array_less(
            abs(slope - wanted_slope),
            eps * slope_error + half * abs(wanted_slope) + floor,
        )

    def test_softmax(self, dtype, stack):
        """An exponential amplifies an ulp of its argument, here at most 2e4, as long as
        it does not vanish."""
        module, evaluate = STACKS[stack]
        rng = np.random.default_rng(0)
        x = rounded(
            np.concatenate(
                [rng.uniform(-9, 9, (20, 5)), [[-1e4, 1e4, 0, 1e4, 3], [-1e4] * 5]]
            ),
            dtype,
        )
        cotangent = np.broadcast_to(np.arange(5.0), x.shape)
        value, slope, kept = evaluate(module.softmax, x, dtype, cotangent)
        p = special.softmax(x, axis=1)
        eps, half, floor = precision(dtype, np.zeros(1))
        # The arguments that matter are below 18: each p within 18 halves, a sum of 5
        # and a quotient. The product with p - [k = j] is a sum of 5 terms up to 4.
        assert kept == dtype
        np.testing.assert_array_less(abs(value - p), (24 * eps + half) * p + floor)
        wanted = p * (cotangent - (p * cotangent).sum(axis=1, keepdims=True))
        np.testing.assert_array_less(
            abs(slope - wanted), 5 * 4 * 24 * eps * p + half * abs(wanted) + 8 * floor
        )


def precision(dtype, x):
    """Eps of the computation, half an ulp of a lower format, and what underflow may
    lose at x."""
    low = dtype in ("float16", "bfloat16")
    computed = np.finfo(np.float32 if low else dtype)
    lost = float(
        jnp.finfo(dtype).smallest_subnormal
        if dtype == "float16"
        else jnp.finfo(dtype).tiny
    )
    amplified = (
        1 + abs(x) + np.sqrt(8 / np.pi) * abs(x) * (1 + 0.134145 * x * x)
    )  # by x, or x times gelu_tanh's 2u'
    return (
        float(computed.eps),
        float(jnp.finfo(dtype).eps) / 2 if low else 0.0,
        lost + float(computed.tiny) * amplified,
    )


@pytest.mark.parametrize("stack", STACKS)
class TestKinks:
    @pytest.mark.parametrize(
        ("name", "value", "slope"),
        [("step", 1, 0), ("relu", 0, 0), ("leaky_relu", 0, 0.01)],
    )
    @pytest.mark.parametrize("zero", [0.0, -0.0])
    def test_at_zero(self, stack, name, value, slope, zero):
        module, evaluate = STACKS[stack]
        assert evaluate(module.ACTIVATIONS[name], np.array([zero]))[:2] == (
            value,
            slope,
        )

    def test_saturation_is_exact(self, stack):
        module, evaluate = STACKS[stack]
        x = np.array([-1e4, 0, 1e4])
        for name, wanted in {
            "sigmoid": [0, 0.5, 1],
            "tanh": [-1, 0, 1],
            "gelu": [0, 0, 1e4],
            "gelu_tanh": [0, 0, 1e4],
        }.items():
            np.testing.assert_array_equal(
                evaluate(module.ACTIVATIONS[name], x)[0], wanted
            )

    @pytest.mark.parametrize("name", NAMES)
    def test_nan_stays_nan(self, stack, name):
        module, evaluate = STACKS[stack]
        assert np.isnan(evaluate(module.ACTIVATIONS[name], np.array([np.nan]))[0]).all()


class TestVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.parameters(*NAMES)
    def test_is_torchs_plain_jitted_and_mapped(self, name):
        activation = jaxnn.activations.ACTIVATIONS[name]

        @self.variant
        def evaluate(x):
            value, pull = jax.vjp(activation, x)
            return value, *pull(jnp.ones_like(value))

        x = np.linspace(-5, 5, 60).reshape(12, 5)
        value, slope = evaluate(jnp.asarray(x))
        chex.assert_equal_shape([value, slope, x])
        chex.assert_type([value, slope], jnp.float64)
        wanted, wanted_slope, _ = in_torch(torch_ref.activations.ACTIVATIONS[name], x)
        np.testing.assert_allclose(value, wanted, rtol=64 * EPS, atol=64 * EPS)
        np.testing.assert_allclose(slope, wanted_slope, rtol=64 * EPS, atol=64 * EPS)


class TestGelu:
    def test_the_two_forms_differ_by_4_7e_4_at_most(self):
        x = np.linspace(-6, 6, 4001)
        largest = abs(
            in_jax(jaxnn.activations.gelu, x)[0]
            - in_jax(jaxnn.activations.gelu_tanh, x)[0]
        ).max()
        assert 4.7e-4 < largest < 4.8e-4


class TestTorchsOwn:
    """torch's gelu computes 1 + erf or 1 + tanh: each cancels below zero, by 2 ulps of
    1 times x."""

    @pytest.mark.parametrize(
        ("name", "theirs"),
        [
            ("step", lambda x: torch.heaviside(x.detach(), torch.ones_like(x)) + 0 * x),
            ("relu", functional.relu),
            ("leaky_relu", functional.leaky_relu),
            ("sigmoid", functional.sigmoid),
            ("tanh", functional.tanh),
            ("softmax", lambda x: functional.softmax(x, dim=-1)),
            ("gelu", functional.gelu),
            ("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh")),
        ],
    )
    @given(x=arrays(np.float64, 6, elements=finite))
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_equal(self, name, theirs, x):
        cotangent = np.array([1.0, -2, 3, 0.5, -1, 2])
        value, slope, _ = in_jax_compiled(name, x, cotangent)
        their_value, their_slope, _ = in_torch(theirs, x, cotangent=cotangent)
        # softmax's exponents are gaps up to 2e4, but those that do not vanish are below
        # 745.
        amplified = 745 if name == "softmax" else 8
        np.testing.assert_allclose(
            value, their_value, rtol=amplified * EPS, atol=4 * EPS * (1 + abs(x).max())
        )
        # Slopes: a few ulps of 1, times gelu_tanh's x u', at most 200 where the slope
        # still moves (|x| < 7).
        np.testing.assert_allclose(
            slope, their_slope, rtol=8 * EPS, atol=3 * max(200, amplified) * 4 * EPS
        )


COMPILED = {}


def in_jax_compiled(name, x, cotangent):
    """As `in_jax` in float64, compiled once per name."""

    def both(x, cotangent):
        value, pull = jax.vjp(jaxnn.activations.ACTIVATIONS[name], x)
        return value, *pull(cotangent)

    value, slope = COMPILED.setdefault(name, jax.jit(both))(x, cotangent)
    return np.asarray(value), np.asarray(slope), "float64"


@pytest.mark.parametrize("name", NAMES)
class TestTwins:
    @given(x=arrays(np.float64, 6, elements=finite))
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_equal(self, name, x):
        """The formulas are the same: what differs is 4 ulps of exp, tanh and erfc,
        amplified as in `exact`."""
        cotangent = np.array([1.0, -2, 3, 0.5, -1, 2])
        ours = in_jax_compiled(name, x, cotangent)
        theirs = in_torch(
            torch_ref.activations.ACTIVATIONS[name], x, cotangent=cotangent
        )
        amplified = (
            745 if name == "softmax" else 8 + 2 * np.minimum(x * x, 1500)
        )  # erfc vanishes at x^2 = 1490
        np.testing.assert_array_less(
            abs(ours[0] - theirs[0]), 4 * EPS * amplified * abs(theirs[0]) + 1e-300
        )
        np.testing.assert_allclose(
            ours[1],
            theirs[1],
            rtol=8 * EPS,
            atol=3 * max(200, np.max(amplified)) * 4 * EPS,
        )
