"""Tests of parity/own/emptiness.py: a parity that could not have failed."""

import pytest

from jaxnn.experiment.errors import UserError
from parity.judging.measure import Measurement
from parity.judging.verdict import judge_measurements
from parity.own.emptiness import refuse_empty

ORDER = ["first", "second", "third"]


def measured(step, quantity, tensor, detectable, z=1.0):
    return Measurement(step, quantity, tensor, z, detectable)


def step_of(number, loss=1e-6, grads=(1e-6, 1e-6, 1e-6), lost=()):
    return [
        *(
            measured(number, "activations", name, 0.5 if name in lost else 1e-6)
            for name in ORDER
        ),
        measured(number, "loss", "", loss),
        *(measured(number, "grads", n, d) for n, d in zip(ORDER, grads)),
    ]


def judge(measurements, steps=2):
    verdict = judge_measurements(measurements, steps, 8.0, ORDER)
    refuse_empty(measurements, verdict, ORDER)


class TestRefuseEmpty:
    def test_sharp_steps_are_a_parity(self):
        judge([*step_of(0), *step_of(1)])

    def test_one_gradient_may_be_rounding(self):
        judge([*step_of(0), *step_of(1, grads=(1e-6, 1e-6, 9.0))])

    def test_names_the_first_layer_that_loses_its_digits(self):
        steps = [*step_of(0), *step_of(1, loss=0.25, lost=("third", "second"))]
        with pytest.raises(UserError) as caught:
            judge(steps)
        assert str(caught.value) == (
            "could not judge: step 1 loses its digits at second: errors below 25% "
            "would not be seen; compute there in float32"
        )

    def test_names_the_loss_where_every_layer_is_sharp(self):
        with pytest.raises(UserError, match="step 0 loses its digits at its loss"):
            judge([*step_of(0, loss=0.25), *step_of(1)])

    def test_the_median_gradient_counts(self):
        with pytest.raises(UserError, match="errors below 50% would"):
            judge([*step_of(0), *step_of(1, grads=(1e-6, 0.5, 0.6))])

    def test_a_divergence_was_found_all_the_same(self):
        broken = measured(1, "grads", "first", 0.5, z=100.0)
        judge([*step_of(0), *step_of(1, loss=0.25), broken])
