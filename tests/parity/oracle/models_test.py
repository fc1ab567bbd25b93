"""Tests of parity/oracle/models: every network against jaxnn in float64."""

import functools

import jax
import numpy as np
import pytest

import jaxnn.models.resnet
from jaxnn import train_step
from jaxnn.experiment.catalogue import MODELS
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import models, step
from parity.oracle.models import resnet
from tests.parity.oracle import networks
from tests.parity.oracle.networks import NETWORKS

every_network = pytest.mark.parametrize("name", NETWORKS)
LAYOUTS = {
    **{name: networks.build(name) for name in NETWORKS},
    **{
        f"resnet {depth}": (
            Experiment(model="resnet", resnet_depth=depth),
            Signature((32, 32, 3), 10),
        )
        for depth in (18, 32, 50)
    },
    "transformer of numbers": (
        Experiment(model="transformer", width=8, num_heads=2),
        Signature((6, 3), 2),
    ),
}


def test_no_network_is_left_out():
    assert models.FAMILIES.keys() == jaxnn.models.FAMILIES.keys()
    assert {flags["model"] for flags, _ in NETWORKS.values()} == MODELS.keys()


class TestForward:
    @pytest.fixture(autouse=True)
    def small_resnets(self, monkeypatch):
        """Cuts resnets to one block per stage: more take seconds to compile."""
        for layouts in (jaxnn.models.resnet.LAYOUTS, resnet.LAYOUTS):
            for depth, blocks in ((20, (1, 1, 1)), (50, (1, 1))):
                monkeypatch.setitem(
                    layouts, depth, layouts[depth]._replace(blocks=blocks, channels=4)
                )

    @every_network
    def test_activations_loss_gradients_and_statistics_are_jaxnns(self, name):
        # 7 of 8 rows: jaxnn pads the batch, the oracle does not.
        experiment, signature = networks.build(name)
        params, batch_stats = networks.variables(experiment, signature)
        inputs, targets = networks.batch(experiment, signature, 7)
        ours = step.gradients(
            experiment, signature, params, batch_stats, inputs, targets, networks.STEP
        )
        theirs = networks.by_jaxnn(
            experiment, signature, params, batch_stats, inputs, targets
        )
        networks.assert_near(ours, theirs)
        layers = [
            [name for name in found if name.startswith("activations/")]
            for found in (ours, theirs)
        ]
        assert layers[0] == layers[1] != []

    @every_network
    def test_outputs_outside_training_are_jaxnns(self, name):
        # In norm: sums of at most a few hundred roundings.
        experiment, signature = networks.build(name)
        params, batch_stats = networks.variables(experiment, signature)
        inputs, _ = networks.batch(experiment, signature, 3)
        with jax.enable_x64(True):
            forward = functools.partial(
                train_step.forward,
                experiment.replace(precision="fp64"),
                jaxnn.models.build(experiment, signature),
            )
            theirs = np.asarray(
                networks.compiled(forward)(
                    trace.unflatten(params), trace.unflatten(batch_stats), inputs
                )
            )
        ours = step.outputs(experiment, signature, params, batch_stats, inputs)
        assert ours.shape == theirs.shape
        assert np.linalg.norm(ours - theirs) <= 1e-12 * np.linalg.norm(theirs)


class TestInitial:
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_names_and_shapes_are_jaxnns(self, name):
        experiment, signature = LAYOUTS[name]
        params, batch_stats = models.initial(experiment, signature)
        model = jaxnn.models.build(experiment, signature)
        theirs = jax.eval_shape(
            lambda: train_step.initial_variables(model, 0, signature)
        )
        for ours, kind in ((params, "params"), (batch_stats, "batch_stats")):
            assert {name: array.shape for name, array in ours.items()} == {
                name: array.shape for name, array in trace.flatten(theirs[kind]).items()
            }

    def test_depends_on_the_seed_and_the_parameter(self):
        experiment, signature = networks.build("gru")
        experiment = experiment.replace(hidden_sizes=(5, 5))
        first, again, other = (
            models.initial(experiment.replace(seed=seed), signature)[0]
            for seed in (0, 0, 1)
        )
        for name, array in first.items():
            np.testing.assert_array_equal(array, again[name])
            assert (array == other[name]).all() == name.endswith("bias")
        assert (
            first["layer_0/recurrent_kernel"] != first["layer_1/recurrent_kernel"]
        ).all()
        gates = np.split(first["layer_0/recurrent_kernel"], 3, axis=1)
        assert (gates[0] != gates[1]).all()

    def test_under_torch_default_a_recurrence_starts_within_its_hidden_size(self):
        experiment, signature = networks.build("lstm")
        params, _ = models.initial(
            experiment.replace(
                initializer="torch_default", hidden_sizes=(100,), dropout_rates=()
            ),
            signature,
        )
        for leaf in (
            "input_kernel",
            "recurrent_kernel",
            "input_bias",
            "recurrent_bias",
        ):
            assert 0.09 < np.abs(params[f"layer_0/{leaf}"]).max() <= 0.1
