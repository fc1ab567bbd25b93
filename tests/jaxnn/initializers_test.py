"""Tests of jaxnn/initializers.py and its twin: the distributions and bounds that each
name promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import init

import jaxnn.initializers
import torch_ref.initializers
from jaxnn.experiment import catalogue

NAMES = list(catalogue.INITIALIZERS)
SHAPES = {"dense": (200, 120), "conv": (3, 5, 30, 40), "embedding": (300, 50)}
FANS = {"dense": (200, 120), "conv": (3 * 5 * 30, 3 * 5 * 40), "embedding": (300, 50)}
CUT = (
    0.87962566103423978  # deviation of a standard normal that is cut at two deviations
)
EPS = np.finfo(np.float32).eps

PROMISES = {  # name: (variance by the fans, distribution of that variance)
    "normal": (lambda fan_in, fan_out: 0.02**2, "normal"),
    "lecun_normal": (lambda fan_in, fan_out: 1 / fan_in, "truncated"),
    "lecun_uniform": (lambda fan_in, fan_out: 1 / fan_in, "uniform"),
    "glorot_normal": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), "truncated"),
    "glorot_uniform": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), "uniform"),
    "he_normal": (lambda fan_in, fan_out: 2 / fan_in, "truncated"),
    "he_uniform": (lambda fan_in, fan_out: 2 / fan_in, "uniform"),
    "torch_default": (lambda fan_in, fan_out: 1 / (3 * fan_in), "uniform"),
}
DISTRIBUTIONS = {  # of variance 1, and the largest value
    "normal": (stats.norm(), np.inf),
    "truncated": (stats.truncnorm(-2, 2, scale=1 / CUT), 2 / CUT),
    "uniform": (stats.uniform(-(3**0.5), 2 * 3**0.5), 3**0.5),
}


def in_jax(initializer, shape, seed=0):
    return np.asarray(
        initializer.kernel(jax.random.key(seed), shape, jnp.float32), np.float64
    )


def in_torch(initializer, shape, seed=0):
    """Fills a weight in torch's layout and gives it back in flax's."""
    torch.manual_seed(seed)
    if shape == SHAPES["embedding"]:
        table = nn.Embedding(*shape).weight
        initializer.kernel(table.T)
        return table.detach().double().numpy()
    weight = nn.Parameter(torch.full((shape[-1], shape[-2], *shape[:-2]), torch.nan))
    initializer.kernel(weight)
    return weight.detach().double().numpy().transpose(*range(2, len(shape)), 1, 0)


STACKS = {
    "jax": (jaxnn.initializers.INITIALIZERS, in_jax),
    "torch": (torch_ref.initializers.INITIALIZERS, in_torch),
}


@pytest.fixture(params=STACKS)
def stack(request):
    """kernel(name, shape, seed=0) -> float64 array in flax's layout."""
    registry, draw = STACKS[request.param]
    return lambda name, shape, seed=0: draw(registry[name], shape, seed)


def draw_bias(name, stack, fan_in, size):
    bias = STACKS[stack][0][name].bias(fan_in)
    if stack == "jax":
        return np.asarray(bias(jax.random.key(0), (size,), jnp.float32), np.float64)
    torch.manual_seed(0)
    return bias(nn.Parameter(torch.full((size,), torch.nan))).detach().double().numpy()


@pytest.mark.parametrize("name", STACKS)
def test_names_in_order(name):
    assert list(STACKS[name][0]) == NAMES


@pytest.mark.parametrize("name", PROMISES)
class TestScaled:
    @pytest.mark.parametrize("kind", SHAPES)
    def test_kernel_is_drawn_from_the_promised_distribution(self, stack, name, kind):
        """Five standard errors: of the mean s/sqrt(n), of the variance at most s^2
        sqrt(2/n).

        Of n >= 15000 values none is within 1% of the bound with probability at most
        exp(-30); the distance to the distribution function exceeds 2.7/sqrt(n) with
        probability 2 exp(-2 * 2.7^2) < 1e-6 (Kolmogorov).
        """
        variance, distribution = PROMISES[name]
        values = stack(name, SHAPES[kind]).ravel() / variance(*FANS[kind]) ** 0.5
        unit, bound = DISTRIBUTIONS[distribution]
        count = len(values)
        assert abs(values.mean()) < 5 / count**0.5
        assert abs(values.var() - 1) < 5 * (2 / count) ** 0.5
        assert stats.ks_1samp(values, unit.cdf).statistic < 2.7 / count**0.5
        assert abs(values).max() <= bound * (
            1 + 4 * EPS
        )  # the deviation and the product are rounded
        assert distribution == "normal" or abs(values).max() > 0.99 * bound

    def test_kernel_depends_on_the_seed_alone(self, stack, name):
        first, again, other = (stack(name, (30, 20), seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).mean() > 0.99


class TestOrthogonal:
    @pytest.mark.parametrize(
        "shape", [(6, 6), (40, 7), (7, 40), (3, 3, 4, 10), (2, 1, 3, 20)]
    )
    def test_columns_or_rows_are_orthonormal(self, stack, shape):
        """Householder's QR is orthogonal within a few ulps times its longer side."""
        matrix = stack("orthogonal", shape).reshape(-1, shape[-1])
        gram = (
            matrix.T @ matrix
            if matrix.shape[0] >= matrix.shape[1]
            else matrix @ matrix.T
        )
        np.testing.assert_allclose(
            gram, np.eye(len(gram)), rtol=0, atol=4 * max(matrix.shape) * EPS
        )

    def test_directions_are_uniform(self, stack):
        """Entries of a uniform 3 x 3 orthogonal matrix: mean 0, variance 1/3. QR's own
        signs bias the diagonal."""
        matrices = np.stack([stack("orthogonal", (3, 3), seed) for seed in range(300)])
        assert abs(matrices.mean(axis=0)).max() < 5 / (3 * 300) ** 0.5
        assert abs(np.linalg.det(matrices).mean()) < 5 / 300**0.5


class TestZeros:
    def test_fills_with_zeros(self, stack):
        for shape in SHAPES.values():
            np.testing.assert_array_equal(
                stack("zeros", shape), np.zeros(shape), strict=True
            )


@pytest.mark.parametrize("stack_name", STACKS)
class TestBias:
    @pytest.mark.parametrize("name", sorted(set(NAMES) - {"torch_default"}))
    def test_is_zero(self, name, stack_name):
        np.testing.assert_array_equal(
            draw_bias(name, stack_name, 16, 9), np.zeros(9), strict=True
        )

    def test_torchs_is_uniform_by_fan_in(self, stack_name):
        values = draw_bias("torch_default", stack_name, 16, 20_000) / 0.25
        assert 0.99 < abs(values).max() <= 1
        assert (
            stats.ks_1samp(values, stats.uniform(-1, 2).cdf).statistic
            < 2.7 / 20_000**0.5
        )


class TestTorchsOwn:
    """The same draws from the same seed."""

    @pytest.mark.parametrize(
        ("name", "theirs"),
        [
            (
                "he_uniform",
                lambda weight: init.kaiming_uniform_(weight, nonlinearity="relu"),
            ),
            ("glorot_uniform", init.xavier_uniform_),
            ("orthogonal", init.orthogonal_),
        ],
    )
    @pytest.mark.parametrize("shape", [(12, 7), (12, 7, 3, 2)])
    def test_equal(self, name, theirs, shape):
        ours, expected = torch.empty(shape), torch.empty(shape)
        torch.manual_seed(3)
        torch_ref.initializers.INITIALIZERS[name].kernel(ours)
        torch.manual_seed(3)
        theirs(expected)
        # The bound, and the draw between its two signs, are rounded: a few ulps of the
        # bound, which is below 1.
        np.testing.assert_allclose(ours, expected, rtol=0, atol=4 * EPS)

    @pytest.mark.parametrize(
        ("layer", "fan_in"),
        [(lambda: nn.Linear(7, 12), 7), (lambda: nn.Conv2d(7, 12, (3, 2)), 42)],
    )
    def test_default_is_reset_parameters(self, layer, fan_in):
        torch.manual_seed(3)
        expected = layer()
        ours, start = layer(), torch_ref.initializers.torch_default
        torch.manual_seed(3)
        start.kernel(ours.weight)
        start.bias(fan_in)(ours.bias)
        np.testing.assert_allclose(
            ours.weight.detach(), expected.weight.detach(), rtol=0, atol=4 * EPS
        )
        np.testing.assert_array_equal(ours.bias.detach(), expected.bias.detach())
        assert ours.weight.requires_grad
