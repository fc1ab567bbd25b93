"""Tests of jaxnn/experiment/results/divergence.py."""

import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import divergence


class TestStopUnlessFinite:
    def test_before_the_first_update_it_is_not_the_learning_rate(self):
        with pytest.raises(UserError, match=r"^step 0: loss is not finite; inputs or"):
            divergence.stop_unless_finite(self.NAMES, np.zeros((3, 2), bool), 0)

    NAMES = ("loss", "gradient of output/bias")

    def test_finite_passes(self):
        divergence.stop_unless_finite(self.NAMES, np.ones((3, 2), bool), 10)

    @pytest.mark.parametrize(
        ("bad", "step", "name"),
        [
            ([(0, 0)], 10, "loss"),
            ([(1, 1), (2, 0)], 11, "gradient of output/bias"),
            ([(2, 1), (2, 0)], 12, "loss"),
        ],
    )
    def test_names_first_step_and_tensor(self, bad, step, name):
        finite = np.ones((3, 2), bool)
        for where in bad:
            finite[where] = False
        with pytest.raises(
            UserError, match=f"^step {step}: {name} is not finite; .*--learning_rate"
        ):
            divergence.stop_unless_finite(self.NAMES, finite, 10)

    @pytest.mark.parametrize(
        ("flags", "step", "cause"),
        [
            (dict(adam_eps=1e-30), 1, "--adam_eps=1e-30 alone divides them; raise it"),
            (dict(adam_eps=1e-30), 0, "inputs or first parameters are too large"),
            (dict(adam_eps=1e-30, optimizer="sgd"), 1, "training diverged, try a sm"),
            (dict(rmsprop_eps=1e-30, optimizer="rmsprop"), 1, "--rmsprop_eps=1e-30 "),
            (dict(weight_decay=1e6, optimizer="adamw"), 1, "--weight_decay=1e.06 tim"),
            (dict(l2=1e6, optimizer="sgd"), 1, "--l2=1e.06 times --learning_rate=0."),
            # Adam divides it away.
            (dict(l2=1e6), 1, "training diverged, try a smaller --learning_rate"),
            (
                dict(leaky_relu_alpha=9.0, activation="leaky_relu"),
                0,
                "--leaky_relu_alpha=9 makes each layer larger",
            ),
            (dict(leaky_relu_alpha=9.0), 1, "training diverged"),
        ],
    )
    def test_names_the_flag_that_is_odd(self, flags, step, cause):
        finite = np.zeros((1, 2), bool)
        with pytest.raises(UserError, match=f"is not finite; .*{cause}"):
            divergence.stop_unless_finite(self.NAMES, finite, step, Experiment(**flags))
