"""Tests of parity/free/ensemble.py: each run equals one of jaxnn.train."""

import jax
import numpy as np
import pytest

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import flatten
from jaxnn.experiment.flags.config import Experiment
from parity.free.end import read
from parity.free.ensemble import Ensemble

FLAGS = (
    "--dataset=iris",
    "--model=mlp",
    "--hidden_sizes=4",
    "--dropout_rates=0.25",
    "--loss=cross_entropy",
    "--preprocess=standardize",
    "--epochs=2",
    "--batch_size=32",
)
MLP = Experiment(
    dataset="iris",
    model="mlp",
    hidden_sizes=(4,),
    dropout_rates=(0.25,),
    loss="cross_entropy",
    preprocess="standardize",
    epochs=2,
    batch_size=32,
    num_devices=1,
    precision="fp32",
)
IRIS = load_dataset(MLP)
# Two epochs of 120 samples in batches of 32.
STEPS = 8


def params(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "hidden_0/kernel": (4, 4),
        "hidden_0/bias": (4,),
        "output/kernel": (4, 3),
        "output/bias": (3,),
    }
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def trained(runs, *seeds):
    """Trains from the parameters of each seed -> (outcomes, skipped)."""
    *ended, results = runs.train(runs.start([params(seed) for seed in seeds]))
    return runs.outcomes(*ended), results.skipped


class TestTrain:
    @pytest.fixture(scope="class")
    @staticmethod
    def ends():
        return trained(Ensemble(MLP, IRIS), 0, 1)[0]

    def test_each_run_is_that_of_jaxnn_train(self, ends, run, tmp_path):
        # jaxnn.train is not vmapped and runs in a process of its own. Over so small a
        # network rounding differs by at most one float32 ulp per step.
        artifacts.write_params(tmp_path / "initial.safetensors", params(1))
        done = run(
            "jaxnn.train",
            *FLAGS,
            "--noplots",
            f"--init_params={tmp_path / 'initial.safetensors'}",
            f"--workdir={tmp_path / 'run'}",
        )
        assert done.returncode == 0, done.stderr
        theirs = read(tmp_path / "run")
        assert theirs.keys() == ends.keys()
        for name, value in theirs.items():
            np.testing.assert_allclose(
                ends[name][1], value, rtol=STEPS * 2.0**-23, atol=STEPS * 2.0**-23
            )

    def test_runs_are_not_mixed(self, ends):
        assert ends["params/hidden_0/kernel"].shape == (2, 4, 4)
        assert (
            ends["params/hidden_0/kernel"][0] != ends["params/hidden_0/kernel"][1]
        ).all()

    def test_counts(self, ends):
        assert (ends["steps"] == STEPS).all()
        assert (ends["skipped_steps"] == 0).all()

    def test_divergence_is_named(self):
        runs = Ensemble(MLP.replace(optimizer="sgd", learning_rate=1e30), IRIS)
        with pytest.raises(UserError, match="is not finite; training diverged"):
            runs.train(runs.start([params(0)]))


class TestTrainEpoch:
    def test_learning_rate_zero_leaves_parameters(self):
        runs = Ensemble(MLP, IRIS)
        state = runs.start([params(0), params(1), params(2)])
        after, epoch = runs.train_epoch(state, 0, learns=False)
        jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
        assert epoch.results.loss.shape == (1, 3, STEPS // 2)


class TestSkipped:
    def test_overflow_is_told(self):
        # A loss scale of 2^40 overflows FP16 and is halved until it does not.
        _, skipped = trained(
            Ensemble(
                MLP.replace(precision="fp16", initial_scale_power=40, hysteresis=1),
                IRIS,
            ),
            0,
        )
        assert skipped.shape == (1, STEPS)
        assert skipped[0, 0]

    def test_updates_that_are_named_are_left_out(self):
        # All but the second update of an epoch are left out.
        runs = Ensemble(
            MLP.replace(epochs=1), IRIS, skipped=np.array([True, False, True, True])
        )
        state = runs.start([params(0)])
        after, _ = runs.train_epoch(state, 0)
        assert (after.updates.item(), after.step.item()) == (1, 4)
        everything, _ = Ensemble(
            MLP.replace(epochs=1), IRIS, skipped=np.ones(4, bool)
        ).train_epoch(state, 0)
        jax.tree.map(np.testing.assert_array_equal, everything.params, state.params)
        moved = [
            (new != old).any()
            for new, old in zip(
                flatten(after.params).values(), flatten(state.params).values()
            )
        ]
        assert all(moved)
