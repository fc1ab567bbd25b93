"""Tests of jaxnn/parallel.py: on this process's one device, and on four virtual ones in
another process."""

import functools
import os
import pathlib
import subprocess
import sys
import unittest.mock

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import epochs, metrics, models, parallel, streaming, train, train_step
from jaxnn.dropout import dropout
from jaxnn.experiment.data import alignment, batches, evaluation, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.interruption import Interruption
from jaxnn.optimizers import OPTIMIZERS

SGD = Experiment(optimizer="sgd", precision="fp32", batch_size=4)
INPUTS = np.array([[1, 2], [3, 1], [0, 1], [2, 2], [1, 0], [-1, 1]], np.float32)
TARGETS = np.array([[0], [1], [2], [-1], [1], [0]], np.float32)
DATA = Dataset(INPUTS, TARGETS, INPUTS[:3], TARGETS[:3], "regression")
SPLITS = evaluation.splits(SGD, DATA)
RATES = np.array([0.5, 0.25], np.float32)
IDS = batches.global_batches(np.array([3, 0, 5, 1, 4, 2], np.int32), 4)


def start():
    """(replicated state, train step, evaluation step) of a linear model with
    whole-number parameters."""
    model, optimizer = models.build(SGD, DATA.signature), OPTIMIZERS["sgd"](SGD)
    params = {
        "output": {"kernel": jnp.array([[1.0], [-2.0]]), "bias": jnp.array([1.0])}
    }
    state = train_step.initial_state(
        {"params": params, "batch_stats": {}}, SGD, optimizer
    )
    state = parallel.replicate(state, jax.devices()[:1])
    step = functools.partial(
        train_step.train_step, SGD, model, optimizer, axis_name=parallel.AXIS
    )
    evaluate = functools.partial(
        train_step.eval_step, SGD, model, metrics.absolute_error
    )
    return state, step, evaluate


def by_hand(kernel, bias, ids):
    """(loss, kernel, bias) of SGD over real samples of each batch, in float64."""
    losses = []
    for rows, rate in zip(ids, RATES):
        x, y = INPUTS[rows[rows >= 0]].astype(np.float64), TARGETS[rows[rows >= 0]]
        error = x @ kernel + bias - y
        losses.append(np.mean(error**2))
        kernel, bias = (
            kernel - rate * 2 * x.T @ error / len(x),
            bias - rate * 2 * error.mean(axis=0),
        )
    return losses, kernel, bias


class TestMakeEpoch:
    def test_two_steps_of_sgd_are_exact(self):
        """The second batch is padded; every number has few binary digits, so float32
        makes no error."""
        state, step, evaluate = start()
        epoch = parallel.make_epoch(step, evaluate, jax.devices()[:1])
        test_ids = batches.global_batches(np.arange(3, dtype=np.int32), 2)
        state, results, sums, outputs = epoch(
            state,
            parallel.shard(IDS, 1),
            parallel.shard(test_ids, 1),
            epochs.make_resident(
                epochs.make_work(SGD, DATA, SPLITS, RATES, jax.devices()[:1])[0]
            ),
        )
        losses, kernel, bias = by_hand(np.array([[1.0], [-2.0]]), np.array([1.0]), IDS)
        params = parallel.first(state.params)["output"]
        np.testing.assert_array_equal(results.loss, [losses])
        np.testing.assert_array_equal(results.learning_rate, [RATES])
        np.testing.assert_array_equal(params["kernel"], kernel)
        np.testing.assert_array_equal(params["bias"], bias)
        expected = INPUTS[:3] @ kernel + bias
        np.testing.assert_array_equal(parallel.unshard(outputs, 3), expected)
        error = expected - TARGETS[:3]
        for batch, rows in enumerate([slice(0, 2), slice(2, 3)]):
            np.testing.assert_array_equal(
                parallel.first(sums)[batch],
                [np.square(error[rows]).sum(), np.abs(error[rows]).sum()],
            )


class TestMakeRecordedStep:
    def test_is_the_epochs_step(self):
        state, step, _ = start()
        recorded = parallel.make_recorded_step(step, jax.devices()[:1])
        for rows in IDS:
            own = parallel.put_rows(
                samples.training(DATA), parallel.shard(rows, 1), jax.devices()[:1]
            )
            state, _, grads = recorded(state, *own, RATES)
        _, kernel, _ = by_hand(np.array([[1.0], [-2.0]]), np.array([1.0]), IDS)
        _, before, _ = by_hand(np.array([[1.0], [-2.0]]), np.array([1.0]), IDS[:1])
        np.testing.assert_array_equal(
            parallel.first(state.params)["output"]["kernel"], kernel
        )
        np.testing.assert_array_equal(
            parallel.first(grads)["output"]["kernel"], (before - kernel) / RATES[1]
        )


class TestShard:
    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_each_device_gets_its_ranks_slice(self, count):
        ids = np.arange(24, dtype=np.int32).reshape(3, 8)
        parts = parallel.shard(ids, count)
        assert parts.shape == (count, 3, 8 // count)
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), ids)


class TestReplicate:
    def test_first_undoes_it(self):
        tree = {
            "a": np.arange(3, dtype=np.float32),
            "b": (np.int32(7), jnp.bool_(True)),
        }
        copies = parallel.replicate(tree, jax.devices()[:1])
        assert [leaf.shape for leaf in jax.tree.leaves(copies)] == [(1, 3), (1,), (1,)]
        chex.assert_trees_all_equal(
            parallel.first(copies), jax.tree.map(np.asarray, tree), strict=True
        )


class TestUnshard:
    @pytest.mark.parametrize(
        ("samples", "most", "devices"), [(10, 3, 2), (8, 8, 4), (5, 4, 1), (7, 1, 2)]
    )
    @pytest.mark.parametrize("shape", [(), (3,)])
    def test_undoes_shard(self, samples, most, devices, shape):
        ids = batches.global_batches(
            np.arange(samples, dtype=np.int32),
            min(most, -(-samples // devices)) * devices,
        )
        ids = parallel.shard(ids, devices)
        outputs = np.broadcast_to(
            ids.reshape(*ids.shape, *[1] * len(shape)), (*ids.shape, *shape)
        )
        rows = parallel.unshard(outputs, samples)
        assert rows.shape == (samples, *shape)
        np.testing.assert_array_equal(
            rows.reshape(samples, -1)[:, 0], np.arange(samples)
        )


class TestCompiled:
    def test_compiles_once_a_shape(self):
        traced = []

        def function(a, b):
            traced.append(b.shape)
            return a + b.sum()

        compiled = parallel.Compiled(jax.jit(function))
        one = jnp.float32(1)
        assert [float(compiled(one, jnp.ones(n))) for n in (2, 3, 2, 3)] == [3, 4, 3, 4]
        assert traced == [(2,), (3,)]
        assert compiled.seconds > 0


class Probe(nn.Module):
    """Outputs each sample's own dropped-out weights, so that the gradient shows the
    mask of its row."""

    @nn.compact
    def __call__(self, rows, masks):
        weights = self.param("weights", nn.initializers.zeros, (32, 16))
        return dropout(weights[rows[:, 0].astype(jnp.int32)], 0.3, 0, masks)


def first_masks(devices):
    """[32, 16] gradient of the first step: 0 where a unit of a sample was dropped."""
    experiment = SGD.replace(batch_size=32, seed=7)
    gradients = functools.partial(
        train_step.gradients, experiment, Probe(), axis_name=parallel.AXIS
    )

    def step(rows):
        batch = train_step.Batch(
            rows[:, None].astype(jnp.float32),
            jnp.ones((len(rows), 16)),
            jnp.ones(len(rows)),
        )
        return gradients(
            {"weights": jnp.zeros((32, 16))}, {}, batch, jnp.int32(0), jnp.float32(1)
        )[1]["weights"]

    rows = parallel.shard(np.arange(32, dtype=np.int32), devices)
    return np.asarray(
        jax.pmap(step, parallel.AXIS, devices=jax.devices()[:devices])(rows)[0]
    )


def run_on_one_and_four(folder: pathlib.Path) -> None:
    """In a process with four virtual devices: trains on one and on four, and saves the
    first masks of each.

    On four also a run that was begun on one, and one with memory for a part of the data
    alone, counted in KiB.
    """
    for devices in (1, 4):
        train.main(experiment_on(devices, folder / str(devices)))
        np.save(folder / f"masks_{devices}.npy", first_masks(devices))
    with unittest.mock.patch.object(Interruption, "is_due", return_value=True):
        train.main(experiment_on(1, folder / "resumed"))
    train.main(experiment_on(4, folder / "resumed").replace(resume=True))
    samples.MEBIBYTE = streaming.MEBIBYTE = 2**10
    train.main(experiment_on(4, folder / "streamed").replace(device_cache_mb=12))


def experiment_on(devices: int, workdir: pathlib.Path) -> Experiment:
    return command_line.parse(
        [
            "train",
            "--flagfile=launch/experiments/breast_cancer.flags",
            "--epochs=2",
            f"--num_devices={devices}",
            f"--workdir={workdir}",
            "--noplots",
        ],
        "fp32",
    )[0]


class TestFourDevices:
    def test_learn_what_one_device_learns(self, tmp_path):
        flags = "--xla_force_host_platform_device_count=4"
        subprocess.run(
            [sys.executable, "-m", "tests.jaxnn.parallel_test", tmp_path],
            check=True,
            timeout=120,
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            cwd=pathlib.Path(__file__).parents[2],
        )
        masks = [np.load(tmp_path / f"masks_{devices}.npy") for devices in (1, 4)]
        np.testing.assert_array_equal(*masks)
        assert 0.5 < np.count_nonzero(masks[0]) / masks[0].size < 0.9
        one, four = (
            artifacts.read_arrays(tmp_path / name / "params.safetensors", "")
            for name in "14"
        )
        assert one.keys() == four.keys()
        resumed = artifacts.read_arrays(tmp_path / "resumed" / "params.safetensors", "")
        for name, array in one.items():
            # 30 steps of Adam on sums in another order: a hundred float32 ulps, in
            # norm.
            for other in (four, resumed):
                assert np.linalg.norm(other[name] - array) <= 1e-5 * np.linalg.norm(
                    array
                ), name
        assert any(
            not np.array_equal(resumed[name], array) for name, array in one.items()
        )
        rows = [artifacts.read_metrics(tmp_path / name) for name in "14"]
        np.testing.assert_allclose(
            rows[1]["train_loss"], rows[0]["train_loss"], rtol=1e-5
        )
        assert artifacts.read_summary(tmp_path / "4")["num_devices"] == 4
        for name in (artifacts.METRICS, artifacts.PARAMS):
            assert (tmp_path / "streamed" / name).read_bytes() == (
                tmp_path / "4" / name
            ).read_bytes()


if __name__ == "__main__":
    run_on_one_and_four(pathlib.Path(sys.argv[1]))


def test_a_device_of_a_cpu_takes_an_aligned_array_as_it_is():
    array = alignment.aligned(np.arange(64, dtype=np.float32).reshape(16, 4))
    put = parallel.put(array, jax.devices()[:1])
    assert put.addressable_data(0).unsafe_buffer_pointer() == array.ctypes.data
