"""Tests of jaxnn/metrics.py."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxnn import metrics

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("task", metrics.METRICS)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
class TestMetrics:
    def test_one_float32_an_example(self, task, dtype):
        targets = jnp.zeros(4, jnp.int32) if task == "multiclass" else jnp.zeros((4, 1))
        value = metrics.METRICS[task][1](jnp.zeros((4, 1), dtype), targets)
        assert (value.shape, value.dtype) == ((4,), jnp.float32)


class TestAbsoluteError:
    def test_averages_the_outputs_of_an_example(self):
        value = metrics.absolute_error(jnp.array([[1.0, -2.0], [0.0, 0.5]]), jnp.array([[0.0, 1.0], [0.0, 0.0]]))
        np.testing.assert_array_equal(value, [2, 0.25])

    def test_float16_outputs_do_not_overflow(self):
        value = metrics.absolute_error(jnp.full((1, 1), -6e4, jnp.float16), jnp.full((1, 1), 6e4))
        np.testing.assert_array_equal(value, [60000 + 60000])


class TestBinaryAccuracy:
    def test_is_the_sign_with_zero_as_one(self):
        outputs = jnp.array([[-1e-30], [-0.0], [0.0], [2.0], [-2.0], [2.0]])
        targets = jnp.array([[0.0], [1.0], [1.0], [1.0], [1.0], [0.0]])
        np.testing.assert_array_equal(metrics.binary_accuracy(outputs, targets), [1, 1, 1, 1, 0, 0])

    def test_is_scikit_learns(self):
        outputs, targets = RNG.standard_normal((64, 1)).astype(np.float32), RNG.integers(0, 2, (64, 1))
        ours = metrics.binary_accuracy(outputs, jnp.asarray(targets, jnp.float32)).mean()
        assert ours == reference.accuracy_score(targets, outputs > 0)


class TestAccuracy:
    def test_is_the_first_of_equals(self):
        outputs = jnp.array([[0.0, 2.0, 1.0], [5.0, 5.0, 5.0], [-3.0, -2.0, -1.0]])
        np.testing.assert_array_equal(metrics.accuracy(outputs, jnp.array([1, 0, 0])), [1, 1, 0])

    def test_is_scikit_learns(self):
        outputs, targets = RNG.standard_normal((64, 5)).astype(np.float32), RNG.integers(0, 5, 64).astype(np.int32)
        assert metrics.accuracy(outputs, targets).mean() == reference.accuracy_score(targets, outputs.argmax(axis=1))
