"""Tests of jaxnn/experiment/results/baselines.py."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from jaxnn.experiment.data import preprocessing
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import baselines


def table(features=3, seed=0):
    rng = np.random.default_rng(seed)
    inputs = 5 + rng.standard_normal((40, features)).astype(np.float32)
    targets = (
        inputs @ rng.standard_normal((features, 1)) + rng.standard_normal((40, 1))
    ).astype(np.float32)
    return Dataset(inputs[:30], targets[:30], inputs[30:], targets[30:], "regression")


def windows(scale=False):
    """Windows of 0, 1, 4, 9, ...: the last value of each, and the next one."""
    series = np.arange(12, dtype=np.float32) ** 2
    inputs = np.lib.stride_tricks.sliding_window_view(series, 4)[:-1, :, None].copy()
    scaling = preprocessing.fit("standardize", inputs) if scale else None
    shown = scaling.apply(inputs) if scaling else inputs
    return Dataset(
        shown, series[4:, None], shown, series[4:, None], "regression", scaling=scaling
    )


class TestLinearRegression:
    @pytest.mark.parametrize("redundant", [False, True], ids=["", "redundant features"])
    def test_is_scikit_learns(self, redundant):
        data = table()
        # A constant column and a repeated one: of all best planes, the least steep.
        if redundant:
            train, test = (
                np.c_[x, np.full(len(x), 7), x[:, 0]].astype(np.float32)
                for x in (data.train_inputs, data.test_inputs)
            )
            data = Dataset(
                train, data.train_targets, test, data.test_targets, "regression"
            )
        expected = LinearRegression().fit(
            data.train_inputs.astype(np.float64), data.train_targets
        )
        # Two float64 solvers of a well-conditioned 30 x 5 system: 1e-12 is thousands of
        # ulps, 1e-4 of float32's one.
        np.testing.assert_allclose(
            baselines.linear_regression(data),
            expected.predict(data.test_inputs),
            rtol=1e-12,
        )


def two_classes(spread):
    """Rows of which a noisy line separates two classes, in units of `spread`."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((80, 3)).astype(np.float32)
    logits = inputs @ [[2.0], [-1.0], [0.5]] + rng.standard_normal((80, 1))
    targets = (logits > 0.3).astype(np.float32)
    inputs *= spread
    return Dataset(inputs[:50], targets[:50], inputs[50:], targets[50:], "binary")


class TestLogisticRegression:
    @pytest.mark.parametrize("spread", [1, 100], ids=["scaled", "steep"])
    def test_is_scikit_learns(self, spread):
        """To what its own solver stops at."""
        data = two_classes(spread)
        model = LogisticRegression(solver="newton-cholesky", tol=1e-10)
        model.fit(data.train_inputs.astype(np.float64), data.train_targets[:, 0])
        expected = model.decision_function(data.test_inputs.astype(np.float64))
        ours = baselines.logistic_regression(data)
        np.testing.assert_allclose(ours[:, 0], expected, rtol=1e-6, atol=1e-6)

    def test_stands_beside_the_logistic_network_alone(self):
        data = two_classes(1)
        logits = baselines.logistic_regression(data)
        share = ((logits > 0) == (data.test_targets > 0.5)).mean()
        found = baselines.compare_classes(Experiment(model="logistic"), data)
        assert found == {"logistic_regression_accuracy": share}
        assert 0.8 < share < 1
        assert baselines.compare_classes(Experiment(model="mlp"), data) == {}


class TestPersistence:
    def test_is_the_last_value(self):
        np.testing.assert_array_equal(
            baselines.persistence(windows())[:, 0], np.arange(3, 11) ** 2
        )

    def test_is_in_the_unit_of_the_targets(self):
        # Scaled inputs are float32 numbers below 4, of a deviation below 64: half an
        # ulp of each.
        np.testing.assert_allclose(
            baselines.persistence(windows(scale=True))[:, 0],
            np.arange(3, 11) ** 2,
            atol=64 * 2**-23,
            rtol=0,
        )


class TestCompare:
    def test_sine(self):
        found = baselines.compare(Experiment(dataset="sine"), windows(), rmse=2.0)
        # The error of persistence is (n + 1)^2 - n^2.
        expected = np.sqrt(np.mean((2 * np.arange(3, 11) + 1.0) ** 2))
        assert found == {
            "persistence_rmse": expected,
            "times_below_persistence": expected / 2,
        }

    def test_no_ratio_to_a_perfect_network(self):
        found = baselines.compare(Experiment(dataset="sine"), windows(), rmse=0.0)
        assert found["times_below_persistence"] is None

    @pytest.mark.parametrize("dataset", baselines.TABLES)
    def test_tables(self, dataset):
        data = table()
        model = LinearRegression().fit(
            data.train_inputs.astype(np.float64), data.train_targets
        )
        expected = model.score(data.test_inputs.astype(np.float64), data.test_targets)
        found = baselines.compare(Experiment(dataset=dataset), data, rmse=1.0)
        assert found.keys() == {"linear_regression_r2"}
        # As above.
        np.testing.assert_allclose(found["linear_regression_r2"], expected, rtol=1e-12)

    @pytest.mark.parametrize(
        ("dataset", "data"), [("linear", table()), ("npz", windows())]
    )
    def test_nothing_elsewhere(self, dataset, data):
        assert baselines.compare(Experiment(dataset=dataset), data, rmse=1.0) == {}
