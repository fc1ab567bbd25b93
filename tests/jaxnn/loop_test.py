"""Tests of jaxnn/loop.py; of whole runs see tests/jaxnn/train_test.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import loop
from jaxnn.experiment.errors import UserError
from jaxnn.train_step import StepResult

NAMES = ["loss", "gradient of w"]


class TestOneAhead:
    def test_the_next_epoch_starts_before_one_is_yielded(self):
        started = []

        def epochs():
            for number in range(3):
                started.append(number)
                yield number

        seen = [(number, list(started)) for number in loop.one_ahead(epochs())]
        assert seen == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2])]


class TestWatchedTensors:
    def test_the_loss_then_each_gradient(self):
        params = {"a": {"bias": jnp.ones(1)}, "b": {"kernel": jnp.ones(1)}}
        assert loop.watched_tensors(params) == [
            "loss",
            "gradient of a/bias",
            "gradient of b/kernel",
        ]


class TestStopIfDiverged:
    def results(self, finite, skipped=(False, False), exhausted=(False, False)):
        """Two steps."""
        steps = np.ones(2, np.float32)
        return StepResult(
            loss=steps,
            learning_rate=steps,
            loss_scale=steps,
            skipped=np.array(skipped),
            exhausted=np.array(exhausted),
            finite=np.array(finite),
        )

    def test_finite_steps_pass(self):
        loop.stop_if_diverged(self.results([[True, True]] * 2), NAMES, 0)

    def test_names_step_and_tensor(self):
        results = self.results([[True, True], [True, False]])
        with pytest.raises(UserError, match=r"^step 8: gradient of w is not finite"):
            loop.stop_if_diverged(results, NAMES, 7)

    def test_a_skipped_step_passes(self):
        results = self.results([[True, False], [True, True]], skipped=(True, False))
        loop.stop_if_diverged(results, NAMES, 7)

    def test_an_overflow_at_the_smallest_scale_ends_the_run(self):
        results = self.results(
            [[True, True], [False, False]],
            skipped=(False, True),
            exhausted=(False, True),
        )
        with pytest.raises(
            UserError, match=r"^step 8: loss overflows at the smallest loss scale \(1\)"
        ):
            loop.stop_if_diverged(results, NAMES, 7)
