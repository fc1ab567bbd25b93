"""Tests of `--freeze` in jaxnn: the trained part, and the step that leaves the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import freezing, models, train_step
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS
from jaxnn.train_step import Batch
from parity.oracle import step as oracle

ROWS, SIGNATURE = 6, Signature((4,), 2)
MLP = Experiment(
    model="mlp",
    precision="fp32",
    hidden_sizes=(5, 3),
    activation="tanh",
    loss="cross_entropy",
    optimizer="adamw",
    weight_decay=0.1,
    l2=0.01,
    clip_norm=0.01,
    batch_size=ROWS,
    epochs=1,
    freeze="hidden_0|output/bias",
)
FROZEN = {"hidden_0/kernel", "hidden_0/bias", "output/bias"}
rng = np.random.default_rng(0)
INPUTS = rng.standard_normal((ROWS, 4)).astype(np.float32)
TARGETS = rng.integers(0, 2, ROWS).astype(np.int32)


def stepped(experiment):
    """State before and after one step, and its gradients."""
    model = models.build(experiment, SIGNATURE)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    variables = train_step.initial_variables(model, 0, SIGNATURE)
    # Biases too are to have something that would decay.
    variables["params"] = jax.tree.map(lambda x: x + 0.1, variables["params"])
    before = train_step.initial_state(variables, experiment, optimizer)
    weights = jnp.ones(ROWS)
    batch = Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS), weights)
    rates = jnp.full(1, 0.1)
    after, _, grads = train_step.train_step(
        experiment, model, optimizer, before, batch, rates
    )
    return before, after, grads, optimizer


class TestStep:
    def test_what_is_frozen_does_not_move_and_the_rest_does(self):
        before, after, grads, optimizer = stepped(MLP)
        old, new = trace.flatten(before.params), trace.flatten(after.params)
        moved = {name for name in old if (old[name] != new[name]).any()}
        assert moved == old.keys() - FROZEN
        assert trace.flatten(grads).keys() == moved
        moments = optimizer.moments(after.opt_state)
        assert trace.flatten(moments.first).keys() == moved

    def test_gradients_of_the_rest_are_as_without_the_flag(self):
        *_, some, _ = stepped(MLP)
        *_, every, _ = stepped(MLP.replace(freeze=""))
        every = trace.flatten(every)
        for name, grad in trace.flatten(some).items():
            np.testing.assert_array_equal(grad, every[name])

    @pytest.mark.parametrize("accumulation_steps", [1, 2])
    def test_is_the_oracles(self, accumulation_steps):
        """To 2^-20 of the largest: the norm that clips is of the trained alone."""
        experiment = MLP.replace(accumulation_steps=accumulation_steps)
        before, after, grads, _ = stepped(experiment)
        params = trace.flatten(before.params)
        found = oracle.gradients(
            experiment, SIGNATURE, params, {}, INPUTS, TARGETS, step=0
        )
        theirs = trace.select(found, "grads")
        assert theirs.keys() == trace.flatten(grads).keys()
        zeros = {
            f"{moment}/{name}": np.zeros_like(grad)
            for moment in ("first", "second")
            for name, grad in theirs.items()
        }
        updated = oracle.update(experiment, params, theirs, zeros, 0, 0.1)
        new = trace.flatten(after.params)
        for name, array in trace.select(updated, "updated").items():
            np.testing.assert_allclose(new[name], array, rtol=0, atol=2.0**-20)


TREE = {"a": {"kernel": 1, "bias": 2}, "b": {"bias": 3}}


class TestParts:
    def test_a_part_laid_over_the_whole_gives_it_back(self):
        like = {"a": {"bias": 0}}
        part = freezing.part(TREE, like)
        assert part == {"a": {"bias": 2}}
        assert freezing.merged(TREE, part) == TREE
        assert freezing.merged(TREE, like)["a"] == {"kernel": 1, "bias": 0}

    def test_a_tree_of_no_names_is_its_own_part(self):
        assert freezing.part([1, 2], [3, 4]) == [1, 2]

    def test_without_the_flag_the_whole_is_trained(self):
        assert freezing.trained(Experiment(), TREE) is TREE
        experiment = Experiment(freeze="^a/")
        assert freezing.trained(experiment, TREE) == {"b": {"bias": 3}}
