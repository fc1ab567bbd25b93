"""Tests of jaxnn/losses.py against float64 formulas and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from jaxnn import losses

EPS = np.finfo(np.float32).eps
RNG = np.random.default_rng(0)
EXTREMES = np.array([-1e4, -100, -20, -1, -1e-3, 0, 1e-3, 1, 20, 100, 1e4], np.float32)


def mean_gradient(loss, outputs, targets):
    return jax.grad(lambda outputs: loss(outputs, targets).mean())(outputs)


@pytest.mark.parametrize("name", losses.LOSSES)
class TestLosses:
    @pytest.mark.parametrize(("given", "computed"), [
        (jnp.float16, jnp.float32), (jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32)])
    def test_computes_in_float32_at_least(self, name, given, computed):
        targets = jnp.zeros(2, jnp.int32) if name == "cross_entropy" else jnp.zeros((2, 1))
        loss = losses.LOSSES[name](jnp.ones((2, 1), given), targets)
        assert (loss.shape, loss.dtype) == ((2,), computed)

    def test_float64_stays_float64(self, name):
        with jax.enable_x64(True):
            targets = jnp.zeros(2, jnp.int32) if name == "cross_entropy" else jnp.zeros((2, 1), jnp.float32)
            assert losses.LOSSES[name](jnp.ones((2, 1), jnp.float64), targets).dtype == jnp.float64


class TestMse:
    def test_has_no_factor_one_half(self):
        np.testing.assert_array_equal(losses.mse(jnp.array([[3.0], [-1.0]]), jnp.array([[1.0], [-1.0]])), [4, 0])

    def test_averages_the_outputs_of_an_example(self):
        np.testing.assert_array_equal(losses.mse(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 1.0]])), [2])

    def test_gradient_is_twice_the_error(self):
        outputs, targets = jnp.array([[3.0], [-1.0]]), jnp.array([[1.0], [1.0]])
        np.testing.assert_array_equal(mean_gradient(losses.mse, outputs, targets), [[2], [-2]])

    def test_float16_outputs_do_not_overflow(self):
        np.testing.assert_array_equal(losses.mse(jnp.full((1, 1), 1e4, jnp.float16), jnp.zeros((1, 1))), [1e8])


class TestBinaryCrossEntropy:
    @pytest.mark.parametrize("label", [0, 1])
    def test_no_cancellation_at_any_logit(self, label):
        """Values and gradients keep all digits, also of a confident, right answer: within 4 ulps."""
        logits = EXTREMES[:, None]
        targets = np.full_like(logits, label)
        margin = np.where(label, logits, -logits).astype(np.float64)
        values = losses.binary_cross_entropy(logits, targets)
        tiny = np.finfo(np.float32).tiny  # results below the smallest normal flush to 0
        np.testing.assert_allclose(values, np.logaddexp(0, -margin)[:, 0], rtol=4 * EPS, atol=tiny)
        slopes = jax.grad(lambda z: losses.binary_cross_entropy(z, targets).sum())(logits)
        exact = -special.expit(-margin) * np.where(label, 1, -1)
        np.testing.assert_allclose(slopes, exact, rtol=4 * EPS, atol=tiny)

    def test_is_scikit_learns_log_loss(self):
        """In float64, where scikit-learn's 1 - p costs at most exp(3) ulps."""
        logits = RNG.uniform(-3, 3, (200, 1))
        labels = RNG.integers(0, 2, (200, 1))
        with jax.enable_x64(True):
            value = float(losses.binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean())
        expected = metrics.log_loss(labels[:, 0], special.expit(logits[:, 0]))
        np.testing.assert_allclose(value, expected, rtol=20 * np.finfo(np.float64).eps)

    def test_averages_the_outputs_of_an_example(self):
        loss = losses.binary_cross_entropy(jnp.array([[0.0, 1e4]]), jnp.array([[1.0, 0.0]]))
        np.testing.assert_allclose(loss, [(np.log(2) + 1e4) / 2], rtol=EPS)


class TestCrossEntropy:
    def test_is_the_formula(self):
        """A difference of terms as large as the largest logit: an absolute error of 4 of its ulps."""
        logits = RNG.uniform(-10, 10, (50, 7)).astype(np.float32)
        targets = RNG.integers(0, 7, 50).astype(np.int32)
        exact = special.logsumexp(logits.astype(np.float64), axis=1) - logits[np.arange(50), targets]
        np.testing.assert_allclose(losses.cross_entropy(logits, targets), exact, rtol=0, atol=4 * 10 * EPS)

    def test_gradient_is_softmax_minus_one_hot(self):
        logits = RNG.uniform(-10, 10, (50, 7)).astype(np.float32)
        targets = RNG.integers(0, 7, 50).astype(np.int32)
        slopes = jax.grad(lambda z: losses.cross_entropy(z, targets).sum())(logits)
        exact = special.softmax(logits.astype(np.float64), axis=1) - np.eye(7)[targets]
        # exp(z - max) of arguments up to 20 carries 20 half ulps, and the rest a few: 16 ulps of 1.
        np.testing.assert_allclose(slopes, exact, rtol=0, atol=16 * EPS)

    def test_is_scikit_learns_log_loss(self):
        logits, labels = RNG.uniform(-3, 3, (200, 4)), RNG.integers(0, 4, 200)
        with jax.enable_x64(True):
            value = float(losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean())
        expected = metrics.log_loss(labels, special.softmax(logits, axis=1))
        np.testing.assert_allclose(value, expected, rtol=20 * np.finfo(np.float64).eps)

    def test_exact_with_exact_gradients_at_1e4(self):
        logits, targets = jnp.array([[1e4, -1e4], [1e4, -1e4]]), jnp.array([0, 1])
        np.testing.assert_array_equal(losses.cross_entropy(logits, targets), [0, 2e4])
        slopes = jax.grad(lambda z: losses.cross_entropy(z, targets).sum())(logits)
        np.testing.assert_array_equal(slopes, [[0, 0], [1, -1]])
