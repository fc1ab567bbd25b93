"""Runs that start one ulp apart: where they start, what they share with jaxnn.train, and what rounding alone does."""

import jax
import numpy as np
import pytest

from jaxnn.experiment import datasets, records
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.trace import flatten
from parity import jax_runs
from parity.jax_runs import FLOAT32, RUNS, Runs
from parity.noise import norm, ulp
from parity.outcome import read

MLP = Experiment(dataset="iris", model="mlp", hidden_sizes=(4,), loss="cross_entropy", preprocess="standardize",
                 epochs=2, batch_size=32, num_devices=1, precision="fp32")
IRIS = datasets.load(MLP)
STEPS = 8  # two epochs of 120 samples in batches of 32
RNG = np.random.default_rng(0)
INITIAL = {"hidden_0/kernel": RNG.normal(size=(4, 4)), "hidden_0/bias": RNG.normal(size=4),
           "output/kernel": RNG.normal(size=(4, 3)), "output/bias": np.zeros(3)}
INITIAL = {name: array.astype(np.float32) for name, array in INITIAL.items()}


def started(experiment):
    return flatten(Runs(experiment, IRIS).start(INITIAL, np.random.default_rng(0)).params)


class TestStart:
    @pytest.mark.parametrize(("precision", "compute"), [("fp32", np.float32), ("fp16", np.float16)])
    def test_one_ulp_apart(self, precision, compute):
        for name, array in started(MLP.replace(precision=precision)).items():
            assert array.shape == (1, RUNS, *INITIAL[name].shape)
            first, *others = array[0]
            rounded = INITIAL[name].astype(compute)
            np.testing.assert_array_equal(first, rounded.astype(np.float32), strict=True)
            for other in others:
                assert (other.astype(compute) == other).all()
                assert (abs(other - first) <= 1.01 * ulp(first, np.dtype(compute))).all(), "1.01: float32's own ulp"
                assert (other != first).any() == rounded.any(), "zeros stay"

    def test_every_run_starts_elsewhere(self):
        starts = {array.tobytes() for array in started(MLP)["hidden_0/kernel"][0]}
        assert len(starts) == RUNS


class TestEnds:
    @pytest.fixture(scope="class")
    @staticmethod
    def ends():
        return jax_runs.train_apart(MLP, IRIS, INITIAL)

    def test_each_run_is_an_outcome(self, ends):
        assert ends.outcomes.keys() == ends.rounding.keys()
        assert {"train_loss", "test_loss", "final/accuracy", "params/output/kernel"} <= ends.outcomes.keys()
        assert ends.outcomes["params/hidden_0/kernel"].shape == (RUNS, 4, 4)
        assert (ends.outcomes["steps"] == STEPS).all()
        assert (ends.outcomes["skipped_steps"] == 0).all()

    def test_runs_stay_together_but_are_not_one(self, ends):
        """A few steps of a small network magnify an ulp little: 100 ulps is far, and equal is no measurement."""
        for name, runs in ends.outcomes.items():
            if name.startswith("params/"):
                spread = max(norm(run - runs[0]) for run in runs)
                assert 0 < spread < 100 * norm(ulp(runs[0], FLOAT32))

    def test_first_run_is_that_of_jaxnn_train(self, ends, run, tmp_path):
        """In a process of its own, by the program that is not vmapped: equal but for rounding."""
        records.write_params(tmp_path / "initial.safetensors", INITIAL)
        flags = ["--dataset=iris", "--model=mlp", "--hidden_sizes=4", "--loss=cross_entropy",
                 "--preprocess=standardize", "--epochs=2", "--batch_size=32", "--noplots"]
        done = run("jaxnn.train", *flags, f"--init_params={tmp_path / 'initial.safetensors'}",
                   f"--workdir={tmp_path / 'run'}")
        assert done.returncode == 0, done.stderr
        theirs = read(tmp_path / "run")
        assert theirs.keys() == ends.outcomes.keys()
        for name, value in theirs.items():
            assert norm(value - ends.outcomes[name][0]) <= max(ends.rounding[name], 1e-6 * norm(value))

    def test_rounding_of_parameters(self, ends):
        """fp32: a random walk of one ulp a step."""
        mean = ends.outcomes["params/output/kernel"].mean(axis=0)
        assert ends.rounding["params/output/kernel"] == pytest.approx(norm(ulp(mean, FLOAT32)) * np.sqrt(STEPS))

    def test_rounding_of_the_rest(self, ends):
        assert ends.rounding["steps"] == 0, "must be equal"
        assert ends.rounding["final/accuracy"] == 1 / len(IRIS.test_inputs), "one answer"
        assert 0 < ends.rounding["test_loss"] < 1e-5 * ends.outcomes["test_loss"].mean()

    def test_divergence_is_named(self):
        with pytest.raises(UserError, match="is not finite; training diverged"):
            jax_runs.train_apart(MLP.replace(optimizer="sgd", learning_rate=1e30), IRIS, INITIAL)


class TestRuns:
    def test_learning_rate_zero_leaves_parameters(self):
        runs = Runs(MLP, IRIS)
        state = runs.start(INITIAL, np.random.default_rng(0))
        after, epoch = runs.train_epoch(state, 0, learns=False)
        jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
        assert epoch.results.loss.shape == (1, RUNS, STEPS // 2)

    def test_moves_by_at_most_rounding(self):
        runs = Runs(MLP.replace(precision="fp16"), IRIS)
        state = runs.start(INITIAL, np.random.default_rng(0))
        moved = flatten(runs.moved(state, np.random.default_rng(0)).params)
        for name, array in flatten(state.params).items():
            assert (abs(moved[name] - array) <= 1.01 * ulp(array, np.dtype(np.float16))).all(), "1.01: float32's ulp"
            assert (moved[name] != array).any()
