"""Tests of jaxnn/diagnosis.py: formulas on a small network, and whole runs."""

import functools
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import diagnosis, models, train_step
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.diagnosis import MEASURED
from jaxnn.experiment.files import artifacts, diagnostics
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS
from jaxnn.train_step import Batch

EXPERIMENT = Experiment(
    model="mlp", hidden_sizes=(4,), optimizer="sgd", learning_rate=0.5, precision="fp32"
)
LAYERS = ["hidden_0", "output"]
RUN = (
    "--dataset=iris",
    "--model=mlp",
    "--hidden_sizes=8",
    "--loss=cross_entropy",
    "--epochs=4",
    "--batch_size=16",
    "--noplots",
)


def diagnosed(experiment: Experiment, weights=(1, 1, 1, 1, 1, 1), plan=(2, 2)):
    """A step of a network whose unit 2 is dead: (state, result, grads)."""
    model = models.build(experiment, Signature((3,), 1))
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    variables = train_step.initial_variables(model, 0, Signature((3,), 1))
    variables["params"]["hidden_0"]["bias"] = jnp.array([0.0, 0, -99, 0])
    state = train_step.initial_state(variables, experiment, optimizer)
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    # What padding holds must not count.
    rows[np.array(weights) == 0] = 1e3
    batch = Batch(rows, rows[:, :1], jnp.array(weights, jnp.float32))
    step = functools.partial(train_step.train_step, experiment, model, optimizer)
    run = diagnosis.diagnosed(step, experiment, model, LAYERS, plan)
    after, result, grads = jax.jit(run.measured)(state, batch, jnp.full(4, 0.5))
    values = {
        name: np.asarray(result.diagnosis[:, column])
        for column, name in enumerate(MEASURED)
    }
    return state, after, grads, values, (run, batch)


class TestDiagnosed:
    def test_norms_and_ratios(self):
        state, after, grads, values, _ = diagnosed(EXPERIMENT)
        for row, layer in enumerate(LAYERS, 1):
            gradient, weights, moved = (
                np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
                for tree in (
                    grads[layer],
                    state.params[layer],
                    jax.tree.map(
                        jnp.subtract, after.params[layer], state.params[layer]
                    ),
                )
            )
            norms = [np.linalg.norm(x) for x in (gradient, weights, moved)]
            np.testing.assert_allclose(
                [
                    values[name][row]
                    for name in ("gradient_norm", "weight_norm", "update_ratio")
                ],
                [norms[0], norms[1], norms[2] / norms[1]],
                rtol=1e-5,
            )
        norm = np.linalg.norm(values["gradient_norm"][1:])
        assert values["gradient_norm"][0] == pytest.approx(norm, rel=1e-5)

    def test_a_dead_unit_and_padding_that_does_not_count(self):
        *_, values, _ = diagnosed(EXPERIMENT, (1, 1, 1, 1, 0, 0))
        assert values["dead"][1] == 0.25
        assert 0.25 <= values["saturated"][1] < 1
        assert abs(values["activation_mean"][1]) < 10
        assert np.isnan(values["dead"][[0, 2]]).all()

    def test_microbatches_make_no_difference(self):
        *_, whole, _ = diagnosed(EXPERIMENT, (1, 1, 1, 1, 1, 0))
        *_, parts, _ = diagnosed(
            EXPERIMENT.replace(accumulation_steps=3), (1, 1, 1, 1, 1, 0)
        )
        for name in MEASURED:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)

    @pytest.mark.parametrize(
        ("first", "count", "due"), [(0, 3, 1), (2, 1, None), (3, 3, 1), (4, 2, 0)]
    )
    def test_only_the_due_step_of_an_epoch_is_looked_at(self, first, count, due):
        state, *_, (run, batch) = diagnosed(EXPERIMENT, plan=[3, 3])
        rates = jnp.full(6, 0.5)
        state = state._replace(step=jnp.int32(first))
        after, results = jax.jit(
            lambda state: diagnosis.scan(run, lambda place: batch, state, rates, count)
        )(state)
        plain = state
        for _ in range(count):
            plain, result, _ = jax.jit(run.step)(plain, batch, rates)
        # A loop may round otherwise.
        chex.assert_trees_all_close((after, results.loss[-1]), (plain, result.loss))
        is_empty = np.isnan(results.diagnosis).all((1, 2))
        np.testing.assert_array_equal(is_empty, np.arange(count) != due)

    @pytest.mark.parametrize(("scale", "lost"), [(2.0**-20, 1.0), (2.0**10, 0.0)])
    def test_fp16_loses_what_its_scale_does_not_lift(self, scale, lost):
        fp16 = EXPERIMENT.replace(precision="fp16", static_loss_scale=scale)
        *_, values, _ = diagnosed(fp16)
        assert values["underflow"][0] == lost


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs, each by name, and what starts another."""
    folder = tmp_path_factory.mktemp("runs")

    def start(name, *arguments):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "jaxnn.train",
                *RUN,
                *arguments,
                f"--workdir={folder / name}",
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return folder / name

    start("without")
    start("with", "--diagnose")
    return folder, start


class TestRuns:
    def test_trains_the_same(self, runs):
        folder, _ = runs
        for name in (artifacts.METRICS, artifacts.PARAMS):
            with_it, without = (
                (folder / run / name).read_bytes() for run in ("with", "without")
            )
            assert with_it == without

    def test_a_row_a_layer_and_epoch(self, runs):
        found = diagnostics.read(runs[0] / "with")
        assert found is not None
        assert list(found.epochs) == [1, 2, 3, 4]
        assert found.layers == ["(network)", *LAYERS]
        metrics = artifacts.read_metrics(runs[0] / "with")
        np.testing.assert_allclose(
            found.of_network["loss_gap"],
            metrics["test_loss"] - metrics["train_loss"],
            rtol=1e-4,
        )

    def test_resumed(self, runs):
        folder, start = runs
        start("resumed", "--diagnose", "--checkpoint_every=2")
        (folder / "resumed" / artifacts.SUMMARY).unlink()
        start("resumed", "--diagnose", "--checkpoint_every=2", "--resume")
        whole, resumed = (
            (folder / run / artifacts.DIAGNOSTICS).read_text()
            for run in ("with", "resumed")
        )
        assert resumed == whole

    def test_on_several_devices(self, runs, monkeypatch):
        folder, start = runs
        monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
        start("two", "--diagnose", "--num_devices=2")
        one, two = (diagnostics.read(folder / run) for run in ("with", "two"))
        assert one is not None
        assert two is not None
        for name in MEASURED:
            np.testing.assert_allclose(
                two.measured[name], one.measured[name], rtol=1e-3, atol=1e-6
            )
