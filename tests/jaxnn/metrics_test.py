"""Tests of jaxnn/metrics.py."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from jaxnn import metrics
from torch_ref import metrics as torch_metrics

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("task", metrics.METRICS)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
class TestMetrics:
    def test_one_float32_an_example(self, task, dtype):
        shape, targets = {
            "multiclass": ((4, 1), jnp.zeros(4, jnp.int32)),
            "language": ((4, 3, 2), jnp.zeros((4, 3), jnp.int32)),
        }.get(task, ((4, 1), jnp.zeros((4, 1))))
        value = metrics.METRICS[task][1](jnp.zeros(shape, dtype), targets)
        assert (value.shape, value.dtype) == ((4,), jnp.float32)


class TestAbsoluteError:
    def test_averages_the_outputs_of_an_example(self):
        value = metrics.absolute_error(
            jnp.array([[1.0, -2.0], [0.0, 0.5]]), jnp.array([[0.0, 1.0], [0.0, 0.0]])
        )
        np.testing.assert_array_equal(value, [2, 0.25])

    def test_float16_outputs_do_not_overflow(self):
        value = metrics.absolute_error(
            jnp.full((1, 1), -6e4, jnp.float16), jnp.full((1, 1), 6e4)
        )
        np.testing.assert_array_equal(value, [60000 + 60000])


class TestBinaryAccuracy:
    def test_is_the_sign_with_zero_as_one(self):
        outputs = jnp.array([[-1e-30], [-0.0], [0.0], [2.0], [-2.0], [2.0]])
        targets = jnp.array([[0.0], [1.0], [1.0], [1.0], [1.0], [0.0]])
        np.testing.assert_array_equal(
            metrics.binary_accuracy(outputs, targets), [1, 1, 1, 1, 0, 0]
        )

    def test_is_scikit_learns(self):
        outputs, targets = (
            RNG.standard_normal((64, 1)).astype(np.float32),
            RNG.integers(0, 2, (64, 1)),
        )
        ours = metrics.binary_accuracy(
            outputs, jnp.asarray(targets, jnp.float32)
        ).mean()
        assert ours == reference.accuracy_score(targets, outputs > 0)


class TestAccuracy:
    def test_is_the_first_of_equals(self):
        outputs = jnp.array([[0.0, 2.0, 1.0], [5.0, 5.0, 5.0], [-3.0, -2.0, -1.0]])
        np.testing.assert_array_equal(
            metrics.accuracy(outputs, jnp.array([1, 0, 0])), [1, 1, 0]
        )

    def test_is_scikit_learns(self):
        outputs, targets = (
            RNG.standard_normal((64, 5)).astype(np.float32),
            RNG.integers(0, 5, 64).astype(np.int32),
        )
        assert metrics.accuracy(outputs, targets).mean() == reference.accuracy_score(
            targets, outputs.argmax(axis=1)
        )


class TestBitsPerCharacter:
    LOGITS = 4 * RNG.standard_normal((5, 3, 7)).astype(np.float32)
    CHARACTERS = RNG.integers(0, 7, (5, 3)).astype(np.int32)

    def bits(self, logits):
        """[5] float64: minus the binary logarithm of the right character's softmax,
        averaged over the positions."""
        logits = logits.astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        return -np.log2(
            np.take_along_axis(probabilities, self.CHARACTERS[..., None], axis=-1)
        ).mean(axis=(1, 2))

    def test_is_the_negative_binary_logarithm(self):
        value = metrics.bits_per_character(self.LOGITS, self.CHARACTERS)
        # Some twenty roundings of float32 numbers up to 32 bits; the errors of log and
        # exp are an ulp or two.
        np.testing.assert_allclose(
            value, self.bits(self.LOGITS), atol=32 * 2**-24 * 20, rtol=0
        )

    def test_is_torchs(self):
        ours = metrics.bits_per_character(self.LOGITS, self.CHARACTERS)
        theirs = torch_metrics.bits_per_character(
            torch.tensor(self.LOGITS), torch.tensor(self.CHARACTERS)
        )
        assert (theirs.shape, theirs.dtype) == ((5,), torch.float32)
        np.testing.assert_allclose(
            ours, theirs, atol=2 * 32 * 2**-24 * 20, rtol=0
        )  # the bound above, of each

    def test_float16_logits_are_computed_in_float32(self):
        logits = self.LOGITS.astype(np.float16)
        theirs = torch_metrics.bits_per_character(
            torch.tensor(logits), torch.tensor(self.CHARACTERS)
        )
        for value in (metrics.bits_per_character(logits, self.CHARACTERS), theirs):
            np.testing.assert_allclose(
                value, self.bits(logits), atol=32 * 2**-24 * 20, rtol=0
            )  # as above

    def test_a_guess_among_eight_is_three_bits(self):
        value = metrics.bits_per_character(
            jnp.zeros((2, 4, 8)), jnp.zeros((2, 4), jnp.int32)
        )
        np.testing.assert_allclose(
            value, [3, 3], rtol=2**-22
        )  # ln 8 / ln 2: three roundings
