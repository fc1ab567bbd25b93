"""Tests of parity/free/spread.py."""

import numpy as np
import pytest

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import flatten
from jaxnn.experiment.flags.config import Experiment
from parity.free import spread
from parity.free.ensemble import Ensemble
from parity.free.spread import FLOAT32, RUNS, Ulps
from parity.noise import norm, ulp

FLOAT16 = np.dtype(np.float16)
MLP = Experiment(
    dataset="iris",
    model="mlp",
    hidden_sizes=(4,),
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
RNG = np.random.default_rng(0)
INITIAL = {
    "hidden_0/kernel": RNG.normal(size=(4, 4)),
    "hidden_0/bias": RNG.normal(size=4),
    "output/kernel": RNG.normal(size=(4, 3)),
    "output/bias": np.zeros(3),
}
INITIAL = {name: array.astype(np.float32) for name, array in INITIAL.items()}


class TestStartApart:
    @pytest.mark.parametrize("compute", [FLOAT16, FLOAT32])
    def test_one_ulp_apart(self, compute):
        first, *others = spread.start_apart(INITIAL, compute, np.random.default_rng(0))
        assert len(others) == RUNS - 1
        for name, array in first.items():
            rounded = INITIAL[name].astype(compute)
            np.testing.assert_array_equal(
                array, rounded.astype(np.float32), strict=True
            )
            for other in others:
                assert (other[name].astype(compute) == other[name]).all()
                assert (abs(other[name] - array) <= ulp(array, compute)).all()
                assert (other[name] != array).any() == rounded.any(), "zeros stay"

    def test_every_run_starts_elsewhere(self):
        starts = spread.start_apart(INITIAL, FLOAT32, np.random.default_rng(0))
        assert len({start["hidden_0/kernel"].tobytes() for start in starts}) == RUNS


class TestUlps:
    def test_one_of_the_compute_format(self):
        assert Ulps(FLOAT16, STEPS).of(np.ones(1)).tolist() == [2.0**-10]

    def test_random_walk_in_float32(self):
        assert Ulps(FLOAT32, 16).of(np.ones(1)).tolist() == [4 * 2.0**-23]

    def test_moves_every_parameter_by_at_most_that(self):
        state = Ensemble(MLP, IRIS).start([INITIAL, INITIAL])
        ulps = Ulps(FLOAT16, STEPS)
        moved = flatten(ulps.move(state, np.random.default_rng(0)).params)
        for name, array in flatten(state.params).items():
            assert (abs(moved[name] - array) <= 1.001 * ulps.of(array)).all(), (
                "float32 rounds the sum"
            )
            assert (moved[name] != array).any()


class TestMeasure:
    @pytest.fixture(scope="class", params=["fp32", "fp16"])
    @staticmethod
    def measured(request):
        # A scale of 2^19 overflows FP16: the first step is skipped, in float64 too.
        experiment = MLP.replace(
            precision=request.param, initial_scale_power=19, hysteresis=1
        )
        return spread.measure(experiment, IRIS, INITIAL)

    def test_each_entry_has_its_measures(self, measured):
        assert (
            measured.ends.keys()
            == measured.exact.keys()
            == measured.rounding.keys()
            == measured.push.keys()
        )
        assert {
            "train_loss",
            "test_loss",
            "final/accuracy",
            "params/output/kernel",
        } <= measured.ends.keys()
        assert measured.ends["params/hidden_0/kernel"].shape == (RUNS, 4, 4)
        assert measured.exact["params/hidden_0/kernel"].shape == (4, 4)

    def test_float64_takes_the_steps_that_the_first_run_takes(self, measured):
        assert measured.exact["steps"] == STEPS
        assert (
            measured.exact["skipped_steps"]
            == measured.ends["skipped_steps"][0]
            < STEPS // 2
        )

    def test_fp16_skipped(self, measured, request):
        is_fp16 = request.node.callspec.params["measured"] == "fp16"
        assert bool(measured.exact["skipped_steps"]) == is_fp16

    def test_runs_stay_together_and_near_float64_but_are_not_one(self, measured):
        # A few steps of a small network amplify rounding by far less than 100. Equal
        # runs would measure nothing.
        for name, runs in measured.ends.items():
            if name.startswith("params/"):
                far = 100 * measured.rounding[name]
                assert 0 < max(norm(run - runs[0]) for run in runs) < far
                assert 0 < norm(runs.mean(axis=0) - measured.exact[name]) < far

    def test_rounding(self, measured):
        assert measured.rounding["steps"] == 0, "must be equal"
        assert measured.rounding["final/accuracy"] == 1 / len(IRIS.test_inputs), (
            "one answer"
        )
        assert (
            0
            < measured.rounding["test_loss"]
            < 0.01 * measured.ends["test_loss"].mean()
        )


class TestRounding:
    ULPS = Ulps(FLOAT32, 1)

    def test_of_a_loss_is_what_moved_parameters_make_of_it(self):
        # Root mean square over RUNS runs, of which one changes by 2.
        ends = {"test_loss": np.full(RUNS, 3.0)}
        moved = {"test_loss": np.array([5.0] + [3.0] * (RUNS - 1))}
        assert spread.rounding(ends, ends, moved, self.ULPS, 0.1)[
            "test_loss"
        ] == pytest.approx(2 / RUNS**0.5)

    def test_is_at_least_two_ulps_and_an_answer_of_a_metric(self):
        ends = {"test_loss": np.full(RUNS, 3.0), "final/accuracy": np.full(RUNS, 0.5)}
        found = spread.rounding(ends, ends, ends, self.ULPS, 0.1)
        assert (found["test_loss"], found["final/accuracy"]) == (2 * 2.0**-22, 0.1)

    def test_of_a_tensor_is_its_norm(self):
        ends = {"params/w": np.ones((RUNS, 9))}
        assert spread.rounding(ends, {}, {}, self.ULPS, 0.1)[
            "params/w"
        ] == pytest.approx(3 * 2.0**-23)


ENDS = {
    "params/w": np.array([[1.0, 2.0], [1.2, 2.0]]),
    "final/accuracy": np.array([0.5, 0.5]),
}
EXACT = {"params/w": np.array([1.1, 2.0]), "final/accuracy": np.array(0.5)}
LOSSES = np.array([[9.0, 9.0, 1.0, 2.0], [9.0, 9.0, 1.2, 2.0]])


class TestPush:
    def test_runs_around_float64_are_not_pushed(self):
        push = spread.push(ENDS, EXACT, LOSSES, np.array([0.0, 0.0, 1.1, 2.0]))
        assert push == {"params/w": 1.0, "final/accuracy": 1.0}

    def test_distance_from_float64_over_deviation(self):
        # Two runs 0.2 apart have a standard deviation of 0.1 sqrt(2). Losses of the
        # first half do not count.
        exact = EXACT | {"params/w": np.array([1.1, 5.0])}
        push = spread.push(ENDS, exact, LOSSES, np.array([0.0, 0.0, 1.1, 2.4]))
        assert push["params/w"] == pytest.approx(3 / (0.1 * 2**0.5))
        assert push["final/accuracy"] == pytest.approx(0.4 / (0.1 * 2**0.5))

    def test_counts_are_not_pushed(self):
        ends = {"steps": np.ones(2), "skipped_steps": np.ones(2)}
        assert set(spread.push(ends, {}, LOSSES, np.full(4, 50.0)).values()) == {1.0}

    def test_runs_that_do_not_part(self):
        # Without a spread there is nothing to multiply.
        losses = np.ones((2, 4))
        assert spread.push({"train_loss": np.ones(2)}, {}, losses, np.full(4, 2.0)) == {
            "train_loss": 1.0
        }
