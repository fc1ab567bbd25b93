"""Tests of jaxnn/losses.py and its twin against float64 formulas, scikit-learn and
torch's own losses."""

import re

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
from sklearn import metrics
from torch.nn import functional

import jaxnn.losses
import torch_ref.losses
from jaxnn.experiment import catalogue
from jaxnn.experiment.errors import UserError

NAMES = list(catalogue.LOSSES)
BINARY = list(catalogue.losses_for(catalogue.BINARY))
CLASSES = list(catalogue.losses_for(catalogue.MULTICLASS))
EPS, EPS32 = np.finfo(np.float64).eps, np.finfo(np.float32).eps
TINY32 = np.finfo(np.float32).tiny  # results below the smallest normal flush to 0
EXTREMES = np.array([-1e4, -100, -20, -1, -1e-3, 0, 1e-3, 1, 20, 100, 1e4])
finite = st.floats(
    -1e4, 1e4, allow_subnormal=False
)  # XLA flushes subnormals to zero, torch keeps them


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def in_jax(loss, outputs, targets, dtype="float64"):
    """Losses, the gradient of their sum, and the formats of both."""

    def both(outputs, targets):
        losses, pull = jax.vjp(lambda outputs: loss(outputs, targets), outputs)
        return losses, *pull(jnp.ones_like(losses))

    losses, slopes = jax.jit(both)(
        jnp.asarray(outputs).astype(dtype), jnp.asarray(targets)
    )
    return (
        np.asarray(losses, np.float64),
        np.asarray(slopes, np.float64),
        losses.dtype.name,
    )


def in_torch(loss, outputs, targets, dtype="float64"):
    leaf = torch.tensor(outputs).to(getattr(torch, dtype)).requires_grad_()
    losses = loss(leaf, torch.tensor(targets))
    losses.sum().backward()
    return (
        losses.detach().double().numpy(),
        leaf.grad.double().numpy(),
        str(losses.dtype).removeprefix("torch."),
    )


STACKS = {"jax": (jaxnn.losses, in_jax), "torch": (torch_ref.losses, in_torch)}


@pytest.fixture(params=STACKS)
def stack(request):
    """run(name, outputs, targets, dtype="float64", **options) -> losses, gradient of
    their sum, format."""
    module, evaluate = STACKS[request.param]
    return lambda name, outputs, targets, dtype="float64", **options: evaluate(
        lambda z, t: module.LOSSES[name](z, t, **options), outputs, targets, dtype
    )


def example(name, rng, batch=20, classes=7, width=10.0):
    """Logits exact in float32, and labels."""
    shape = (batch, classes if name in CLASSES else 3)
    logits = rng.uniform(-width, width, shape).astype(np.float32).astype(np.float64)
    if name == "mse":
        return logits, rng.uniform(-width, width, shape)
    return logits, rng.integers(0, classes, batch) if name in CLASSES else rng.integers(
        0, 2, shape
    ).astype(np.float32)


class TestRegistry:
    @pytest.mark.parametrize("module", [jaxnn.losses, torch_ref.losses])
    def test_names_are_the_catalogues(self, module):
        assert set(module.LOSSES) == set(NAMES)

    @pytest.mark.parametrize("name", STACKS)
    def test_build_smooths_cross_entropy_alone(self, name):
        module, evaluate = STACKS[name]
        value, *_ = evaluate(
            module.build("cross_entropy", 0.5),
            np.array([[2.0, 0, 0, 0]]),
            np.array([0]),
        )
        normalizer = np.log(np.exp(2) + 3)
        np.testing.assert_allclose(
            value, [normalizer - (0.5 + 0.5 / 4) * 2], rtol=8 * EPS
        )
        assert all(
            module.build(other, 0.5) is module.LOSSES[other]
            for other in NAMES
            if other != "cross_entropy"
        )


class TestAll:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        ("given", "computed"),
        [
            ("float16", "float32"),
            ("bfloat16", "float32"),
            ("float32", "float32"),
            ("float64", "float64"),
        ],
    )
    def test_finite_at_1e4_and_computed_in_float32_at_least(
        self, stack, name, given, computed
    ):
        logits = np.array([[-1e4, 0, 1e4], [1e4, -1e4, 1e4], [0, 0, 0]])
        targets = (
            np.array([0, 1, 2])
            if name in CLASSES
            else np.array([[0, 1, 1], [1, 0, 0], [0, 1, 0]], np.float32)
        )
        losses, slopes, dtype = stack(name, logits, targets, given)
        assert (losses.shape, dtype) == ((3,), computed)
        assert np.isfinite(losses).all()
        assert np.isfinite(slopes).all()

    @pytest.mark.parametrize("name", NAMES)
    def test_averages_the_steps_of_a_sequence(self, stack, name):
        logits, targets = example(name, np.random.default_rng(1), batch=6)
        losses, slopes, _ = stack(name, logits, targets)
        steps = stack(
            name, logits.reshape(2, 3, -1), targets.reshape(2, 3, *targets.shape[1:])
        )
        np.testing.assert_allclose(
            steps[0], losses.reshape(2, 3).mean(axis=1), rtol=8 * EPS
        )
        np.testing.assert_allclose(steps[1], slopes.reshape(2, 3, -1) / 3, rtol=4 * EPS)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        ("outputs", "targets"), [((4, 3), (3,)), ((4, 1), (4, 3)), ((4, 1), (1, 1))]
    )
    def test_refuses_what_would_broadcast(self, stack, name, outputs, targets):
        with pytest.raises(UserError) as error:
            stack(name, np.zeros(outputs), np.zeros(targets, np.int32))
        message = str(error.value)  # match= would also see the note that JAX adds
        assert re.fullmatch(
            rf"--loss: {name} .*\(4, .\).*; choose a loss that fits the data", message
        )

    @pytest.mark.parametrize("name", CLASSES)
    def test_refuses_classes_that_are_not_integers(self, stack, name):
        with pytest.raises(
            UserError,
            match=rf"^--loss: {name} takes an integer class .*float32 targets \(4,\)",
        ):
            stack(name, np.zeros((4, 3)), np.zeros(4, np.float32))


class TestVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.parameters(*NAMES)
    def test_is_torchs_plain_jitted_and_mapped(self, name):
        loss = jaxnn.losses.LOSSES[name]

        @self.variant
        def evaluate(logits, targets):
            losses, pull = jax.vjp(lambda logits: loss(logits, targets), logits)
            return losses, *pull(jnp.ones_like(losses))

        logits, targets = example(name, np.random.default_rng(0))
        losses, slopes = evaluate(jnp.asarray(logits), jnp.asarray(targets))
        chex.assert_shape(losses, (len(logits),))
        chex.assert_equal_shape([slopes, logits])
        wanted, wanted_slopes, _ = in_torch(
            torch_ref.losses.LOSSES[name], logits, targets
        )
        # Scores are below 10: exp amplifies an ulp of its argument, below 20, so often.
        np.testing.assert_allclose(losses, wanted, rtol=64 * EPS, atol=64 * EPS)
        np.testing.assert_allclose(slopes, wanted_slopes, rtol=64 * EPS, atol=64 * EPS)


class TestMse:
    def test_has_no_factor_one_half_and_averages_outputs(self, stack):
        losses, slopes, _ = stack(
            "mse",
            np.array([[3.0, 1.0], [-1.0, -1.0]]),
            np.array([[1.0, 1.0], [-1.0, 1.0]]),
        )
        np.testing.assert_array_equal(losses, [2, 2])
        np.testing.assert_array_equal(slopes, [[2, 0], [0, -2]])

    def test_float16_outputs_do_not_overflow(self, stack):
        np.testing.assert_array_equal(
            stack("mse", np.full((1, 1), 1e4), np.zeros((1, 1)), "float16")[0], [1e8]
        )


class TestBinaryCrossEntropy:
    @pytest.mark.parametrize("label", [0, 1])
    def test_no_cancellation_at_any_logit(self, stack, label):
        """Values and gradients keep all digits, also of a confident, right answer:
        within 4 ulps."""
        logits = EXTREMES.astype(np.float32)[:, None]
        margin = np.where(label, logits, -logits).astype(np.float64)
        losses, slopes, _ = stack(
            "binary_cross_entropy", logits, np.full_like(logits, label), "float32"
        )
        np.testing.assert_allclose(
            losses, np.logaddexp(0, -margin)[:, 0], rtol=4 * EPS32, atol=TINY32
        )
        exact = -special.expit(-margin) * np.where(label, 1, -1)
        np.testing.assert_allclose(slopes, exact, rtol=4 * EPS32, atol=TINY32)

    def test_is_scikit_learns_log_loss(self, stack):
        """scikit-learn's 1 - p costs at most exp(3) ulps."""
        rng = np.random.default_rng(0)
        logits, labels = rng.uniform(-3, 3, (200, 1)), rng.integers(0, 2, (200, 1))
        value = stack("binary_cross_entropy", logits, labels)[0].mean()
        expected = metrics.log_loss(labels[:, 0], special.expit(logits[:, 0]))
        np.testing.assert_allclose(value, expected, rtol=20 * EPS)

    def test_averages_the_outputs_of_an_example(self, stack):
        losses, *_ = stack(
            "binary_cross_entropy", np.array([[0.0, 1e4]]), np.array([[1.0, 0.0]])
        )
        np.testing.assert_allclose(losses, [(np.log(2) + 1e4) / 2], rtol=EPS)


def exact_cross_entropy(logits, labels):
    """Losses and slopes from positive terms alone, without a subtraction of nearly
    equal numbers."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = powers / powers.sum(axis=1, keepdims=True)
    rest = np.stack(
        [np.delete(p, k, axis=1).sum(axis=1) for k in range(p.shape[1])], axis=1
    )  # 1 - p
    far = special.logsumexp(logits, axis=1, keepdims=True) - logits
    surprises = np.where(p > 0.5, -np.log1p(-np.minimum(rest, 0.5)), far)
    others = labels.sum(axis=1, keepdims=True) - labels
    return (labels * surprises).sum(axis=1), p * others - labels * rest


class TestCrossEntropy:
    @pytest.mark.parametrize("kind", ["integers", "one_hot"])
    @pytest.mark.parametrize("width", [1, 10, 40])
    def test_no_cancellation_at_any_logit(self, stack, kind, width):
        """Relative: arguments of exp up to 2 width, each with an ulp, and the sums of 7
        terms."""
        logits, classes = example(
            "cross_entropy", np.random.default_rng(width), batch=40, width=width
        )
        classes[::2] = logits[::2].argmax(
            axis=1
        )  # right answers, at width 40 surer than an ulp of 1
        labels = np.eye(7)[classes]
        losses, slopes, _ = stack(
            "cross_entropy",
            logits,
            classes if kind == "integers" else labels,
            "float32",
        )
        exact_losses, exact_slopes = exact_cross_entropy(logits, labels)
        rtol = (2 * width + 20) * EPS32
        np.testing.assert_allclose(losses, exact_losses, rtol=rtol, atol=TINY32)
        np.testing.assert_allclose(slopes, exact_slopes, rtol=rtol, atol=TINY32)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
    @pytest.mark.parametrize("kind", ["integers", "probabilities"])
    def test_is_torchs(self, stack, kind, smoothing):
        """torch subtracts logits up to 10 from their log sum: 32 ulps of 16 in value,
        32 of 1 in slope."""
        rng = np.random.default_rng(2)
        logits, targets = example("cross_entropy", rng)
        if kind == "probabilities":
            targets = rng.dirichlet(np.ones(7), 20)
        losses, slopes, _ = stack(
            "cross_entropy", logits, targets, label_smoothing=smoothing
        )
        theirs = in_torch(
            lambda z, t: functional.cross_entropy(
                z, t, reduction="none", label_smoothing=smoothing
            ),
            logits,
            targets,
        )
        np.testing.assert_allclose(losses, theirs[0], rtol=0, atol=32 * 16 * EPS)
        np.testing.assert_allclose(slopes, theirs[1], rtol=0, atol=32 * EPS)

    def test_is_scikit_learns_log_loss(self, stack):
        rng = np.random.default_rng(0)
        logits, labels = rng.uniform(-3, 3, (200, 4)), rng.integers(0, 4, 200)
        expected = metrics.log_loss(labels, special.softmax(logits, axis=1))
        np.testing.assert_allclose(
            stack("cross_entropy", logits, labels)[0].mean(), expected, rtol=20 * EPS
        )

    @pytest.mark.parametrize("kind", ["integers", "one_hot"])
    def test_exact_with_exact_gradients_at_1e4(self, stack, kind):
        targets = np.array([0, 1]) if kind == "integers" else np.eye(2)
        losses, slopes, _ = stack(
            "cross_entropy", np.array([[1e4, -1e4], [1e4, -1e4]]), targets, "float32"
        )
        np.testing.assert_array_equal(losses, [0, 2e4])
        np.testing.assert_array_equal(slopes, [[0, 0], [1, -1]])

    def test_one_class_leaves_nothing_to_learn(self, stack):
        losses, slopes, _ = stack("cross_entropy", np.array([[5.0]]), np.array([0]))
        assert (losses, slopes) == (0, 0)


class TestHinge:
    def test_value_and_slope(self, stack):
        """The kink at t z = 1 has slope 0."""
        logits = np.array([[-2.0], [-1.0], [0.5], [1.0], [3.0]])
        for label, losses, slopes in (
            (1, [3, 2, 0.5, 0, 0], [-1, -1, -1, 0, 0]),
            (0, [0, 0, 1.5, 2, 4], [0, 0, 1, 1, 1]),
        ):
            ours = stack("hinge", logits, np.full((5, 1), label, np.float32))
            np.testing.assert_array_equal(ours[0], losses)
            np.testing.assert_array_equal(ours[1][:, 0], slopes)

    def test_is_scikit_learns(self, stack):
        rng = np.random.default_rng(3)
        logits, labels = rng.normal(size=(50, 1)), rng.integers(0, 2, (50, 1))
        expected = metrics.hinge_loss(2 * labels[:, 0] - 1, logits[:, 0])
        np.testing.assert_allclose(
            stack("hinge", logits, labels)[0].mean(), expected, rtol=8 * EPS
        )


class TestMulticlassHinge:
    def test_is_torchs_multi_margin_loss(self, stack):
        logits, targets = example("multiclass_hinge", np.random.default_rng(4), width=2)
        losses, slopes, _ = stack("multiclass_hinge", logits, targets)
        theirs = in_torch(
            lambda z, t: functional.multi_margin_loss(z, t, reduction="none"),
            logits,
            targets,
        )
        np.testing.assert_allclose(losses, theirs[0], rtol=16 * EPS)
        np.testing.assert_allclose(slopes, theirs[1], rtol=16 * EPS)

    def test_kinks_have_slope_zero(self, stack):
        """Margins of 1 to the second class, of 0.5 to the third."""
        losses, slopes, _ = stack(
            "multiclass_hinge", np.array([[2.0, 1.0, 1.5, -3.0]]), np.array([0])
        )
        np.testing.assert_array_equal(losses, [0.5 / 4])
        np.testing.assert_array_equal(slopes, [[-0.25, 0, 0.25, 0]])


class TestPerceptron:
    def test_slope_is_step_minus_label(self, stack):
        logits = np.array([[-2.0], [0.0], [3.0]])
        for label, losses, slopes in (
            (1, [2, 0, 0], [-1, 0, 0]),
            (0, [0, 0, 3], [0, 1, 1]),
        ):
            ours = stack("perceptron", logits, np.full((3, 1), label, np.float32))
            np.testing.assert_array_equal(ours[0], losses)
            np.testing.assert_array_equal(ours[1][:, 0], slopes)

    def test_descent_is_rosenblatts_rule(self):
        """On small integers the two are equal to the bit, example by example."""
        rng = np.random.default_rng(5)
        inputs, ours, rule = (
            rng.integers(-3, 4, (60, 4)).astype(np.float64),
            np.zeros(4),
            np.zeros(4),
        )
        labels, changes = (inputs @ [1, -2, 0, 3] >= 1).astype(np.float64), 0
        slope = jax.jit(
            jax.grad(
                lambda w, x, t: jaxnn.losses.perceptron((w @ x)[None, None], t).sum()
            )
        )
        for x, label in zip(inputs, labels):
            ours = ours - np.asarray(slope(ours, x, np.full((1, 1), label)))
            rule = rule + (label - (rule @ x >= 0)) * x
            np.testing.assert_array_equal(ours, rule)
            changes += label != (rule @ x >= 0)
        assert changes < 60

    def test_of_classes(self, stack):
        """The first of equal scores is the largest."""
        logits = np.array(
            [[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [7.0, 7.0, 0.0], [7.0, 7.0, 0.0]]
        )
        losses, slopes, _ = stack("perceptron", logits, np.array([1, 0, 1, 0]))
        np.testing.assert_array_equal(losses, [0, 3, 0, 0])
        np.testing.assert_array_equal(
            slopes, [[0, 0, 0], [-1, 1, 0], [1, -1, 0], [0, 0, 0]]
        )


class TestWeightedMean:
    @pytest.mark.parametrize("name", STACKS)
    def test_leaves_padding_out(self, name):
        module, evaluate = STACKS[name]
        weights = np.array([1, 2, 0, 5], np.float32)
        mean, slopes, dtype = evaluate(
            module.weighted_mean, np.array([1.0, 4.0, 1e9, 8.0]), weights
        )
        assert (mean.shape, mean, dtype) == ((), 49 / 8, "float64")
        np.testing.assert_array_equal(slopes, weights / 8)


COMPILED = {}


class TestTwins:
    @pytest.mark.parametrize(
        ("name", "form"),
        [(name, "rows") for name in BINARY]
        + [(name, "classes") for name in CLASSES]
        + [("cross_entropy", "smoothed")],
    )
    @given(logits=arrays(np.float64, (2, 5), elements=finite), data=st.data())
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_equal(self, name, form, logits, data):
        """exp's arguments are below 745 where it does not vanish: that many halves of
        an ulp, and a few."""
        shape, top = ((2, 5), 1) if form == "rows" else ((2,), 4)
        targets = data.draw(arrays(np.int64, shape, elements=st.integers(0, top)))
        options = {"label_smoothing": 0.3} if form == "smoothed" else {}

        def loss(z, t):
            return jaxnn.losses.LOSSES[name](z, t, **options)

        def both(z, t):
            losses, pull = jax.vjp(lambda z: loss(z, t), z)
            return losses, *pull(jnp.ones_like(losses))

        ours = COMPILED.setdefault((name, form), jax.jit(both))(logits, targets)
        theirs = in_torch(
            lambda z, t: torch_ref.losses.LOSSES[name](z, t, **options), logits, targets
        )
        np.testing.assert_allclose(ours[0], theirs[0], rtol=400 * EPS, atol=1e-300)
        # Smoothed slopes are differences p - q: ulps of 1. All others keep their
        # digits.
        np.testing.assert_allclose(
            ours[1], theirs[1], rtol=400 * EPS, atol=400 * EPS if options else 1e-300
        )
