"""Tests of jaxnn/epochs.py; of whole runs see tests/jaxnn/train_test.py."""

import functools

import chex
import jax
import numpy as np
import pytest

from jaxnn import epochs, metrics, models, parallel, train_step
from jaxnn.experiment.data import evaluation
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS

EXPERIMENT = Experiment(batch_size=4, epochs=2, validation_fraction=0.2)
INPUTS = np.arange(12, dtype=np.float32).reshape(6, 2)
DATA = Dataset(
    INPUTS,
    INPUTS[:, :1],
    INPUTS[:3],
    INPUTS[:3, :1],
    "regression",
    validation_inputs=INPUTS[:2],
    validation_targets=INPUTS[:2, :1],
)
SPLITS = evaluation.splits(EXPERIMENT, DATA)
RATES = np.array([0.5, 0.25], np.float32)


class TestMakeResident:
    def test_holds_the_data_set(self):
        resident = epochs.make_resident(
            epochs.make_work(EXPERIMENT, DATA, SPLITS[:1], RATES, jax.devices()[:1])[0]
        )
        assert resident.train.scaling is resident.evaluated.scaling is None
        for ours, theirs in (
            (resident.train.inputs, DATA.train_inputs),
            (resident.train.targets, DATA.train_targets),
            (resident.evaluated.inputs, DATA.test_inputs),
            (resident.evaluated.targets, DATA.test_targets),
            (resident.learning_rates, RATES),
        ):
            np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.fixture
def work():
    return epochs.make_work(EXPERIMENT, DATA, SPLITS, RATES, jax.devices()[:1])[0]


class TestWork:
    def test_batches_after_those_done(self, work):
        whole = work.global_batches(1, 0)
        assert sorted(whole.reshape(-1)) == [-1, -1, *range(6)]
        np.testing.assert_array_equal(work.global_batches(1, 1), whole[1:])
        assert work.global_batches(1, 2).shape == (0, 4)

    def test_first_step_of_each_epoch(self, work):
        assert work.plan == [2, 2]
        assert [work.first_step(number) for number in range(2)] == [0, 2]

    def test_batches_of_the_test_split_come_first(self, work):
        assert work.test_batches == 1
        np.testing.assert_array_equal(work.evaluated_ids, [[0, 1, 2], [3, 4, -1]])


def start(count, watch=lambda function: function):
    """Work, runner and first state of some epochs of two steps."""
    experiment = EXPERIMENT.replace(
        epochs=count, optimizer="sgd", learning_rate=1e-3, precision="fp32"
    )
    devices = jax.devices()[:1]
    rates = np.full(2 * count, experiment.learning_rate, np.float32)
    work, _ = epochs.make_work(experiment, DATA, SPLITS, rates, devices)
    model = models.build(experiment, DATA.signature)
    optimizer = OPTIMIZERS["sgd"](experiment)
    runner = epochs.ResidentEpochs(
        work,
        functools.partial(
            watch(train_step.train_step),
            experiment,
            model,
            optimizer,
            axis_name=parallel.AXIS,
        ),
        functools.partial(
            watch(train_step.eval_step), experiment, model, metrics.absolute_error
        ),
    )
    variables = train_step.initial_variables(model, 0, DATA.signature)
    state = train_step.initial_state(variables, experiment, optimizer)
    return work, runner, parallel.replicate(state, devices)


class TestResidentEpochs:
    def test_epochs_of_one_shape_are_traced_once(self):
        """The host's loop over epochs must not trace or compile again."""
        chex.clear_trace_counter()
        work, runner, state = start(
            4, lambda function: chex.assert_max_traces(function, n=1)
        )
        for number in range(len(work.plan)):
            state, epoch = runner.run(number, 0, state)
        assert parallel.first(state.step) == sum(work.plan) == 8
        assert np.isfinite(epoch.sums).all()


class TestSeveral:
    def test_are_the_epochs_one_by_one_to_the_bit(self):
        _, runner, state = start(7)
        expected = []
        for number in range(7):
            state, epoch = runner.run(number, 0, state)
            expected.append(parallel.first((epoch.results, epoch.sums)))
        outputs, params = epoch.outputs, parallel.first(state.params)

        _, runner, state = start(7)
        together, number = [], 0
        while number < 7:
            state, several = runner.run_several(number, min(4, 7 - number), state)
            read = list(several.read())
            assert len(read) == several.count
            assert all(epoch.outputs is None for epoch in read[:-1])
            together += [parallel.first((epoch.results, epoch.sums)) for epoch in read]
            number += several.count
        chex.assert_trees_all_equal(together, expected)
        chex.assert_trees_all_equal(read[-1].outputs, outputs)
        chex.assert_trees_all_equal(parallel.first(state.params), params)

    def test_the_first_is_alone_and_no_call_exceeds_what_is_asked(self):
        _, runner, state = start(7)
        state, several = runner.run_several(0, 5, state)
        assert several.count == 1
        # These take microseconds, so that only the argument limits them.
        _, several = runner.run_several(1, 5, state)
        assert several.count == 5

    def test_none_where_each_epoch_may_be_the_last(self, work):
        assert epochs.most_together(work) == len(work.plan)
        patient = work.experiment.replace(patience=2)
        assert epochs.most_together(work._replace(experiment=patient)) == 1

    def test_their_ids_are_bounded(self, work):
        large = work._replace(plan=[2**18] * 3)
        assert epochs.most_together(large) == 1
