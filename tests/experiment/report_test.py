"""Tests of jaxnn/experiment/report.py."""

import numpy as np
import pytest
from sklearn import metrics

from jaxnn.experiment import report
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import Dataset

PARAMS = {"output/kernel": np.array([[2.5]], np.float32), "output/bias": np.array([0.75], np.float32)}


def dataset(targets, task, classes=()):
    targets = np.asarray(targets)
    inputs = np.zeros((len(targets), 1), np.float32)
    return Dataset(inputs, targets, inputs, targets, task, tuple(map(str, range(classes))) if classes else ())


class TestFinalMetrics:
    def test_regression_is_scikit_learns(self):
        rng = np.random.default_rng(0)
        outputs, targets = rng.standard_normal((2, 50, 1)).astype(np.float32)
        final = report.final_metrics(Experiment(model="mlp"), dataset(targets, "regression"), {}, outputs)
        assert final.keys() == {"mae", "rmse"}
        # The same float64 sums in another order: a few float64 ulps.
        outputs, targets = outputs.astype(np.float64), targets.astype(np.float64)
        np.testing.assert_allclose(final["mae"], metrics.mean_absolute_error(targets, outputs), rtol=1e-15)
        np.testing.assert_allclose(final["rmse"], metrics.root_mean_squared_error(targets, outputs), rtol=1e-15)

    def test_binary(self):
        data = dataset(np.array([[1], [0], [0], [1]], np.float32), "binary", 2)
        final = report.final_metrics(Experiment(dataset="breast_cancer"), data, {}, np.array([[3.0], [-1], [2], [0]]))
        assert final == {"accuracy": 0.75, "correct": 3, "samples": 4}

    def test_multiclass(self):
        data = dataset(np.array([2, 0, 1, 1], np.int32), "multiclass", 3)
        final = report.final_metrics(Experiment(dataset="digits"), data, {}, np.eye(3, dtype=np.float32)[[2, 0, 0, 1]])
        assert final == {"accuracy": 0.75, "correct": 3, "samples": 4}

    def test_the_line_is_judged_only_for_linear_on_linear(self):
        data, outputs = dataset([[1.0]], "regression"), np.array([[1.5]], np.float32)
        assert report.final_metrics(Experiment(), data, PARAMS, outputs) == {
            "mae": 0.5, "rmse": 0.5, "weight": 2.5, "bias": 0.75, "weight_error": 0.5, "bias_error": 0.25,
            "weight_error_percent": 25.0, "bias_error_percent": 25.0, "quality": "poor"}
        assert "quality" not in report.final_metrics(Experiment(model="mlp"), data, PARAMS, outputs)


class TestPredictedClasses:
    def test_binary_is_the_sign_with_zero_as_one(self):
        predicted = report.predicted_classes(dataset([[0.0]], "binary", 2), np.array([[-1.0], [-0.0], [0], [1]]))
        np.testing.assert_array_equal(predicted, [0, 1, 1, 1])

    def test_multiclass_is_the_largest_and_the_first_of_equals(self):
        outputs = np.array([[0, 2, 1], [5, 5, 5], [-3, -2, -1]])
        np.testing.assert_array_equal(report.predicted_classes(dataset([0], "multiclass", 3), outputs), [1, 0, 2])


class TestLineErrors:
    @pytest.mark.parametrize(("weight", "bias", "expected"), [
        (2.0, 1.0, (0, 0, 0, 0, "excellent")),
        (2.25, 1.0, (0.25, 0, 12.5, 0, "poor")),
        (2.0, 0.96875, (0, 0.03125, 0, 3.125, "good")),
        (1.9375, 1.03125, (0.0625, 0.03125, 3.125, 3.125, "fair")),
    ])
    def test_absolute_and_per_cent(self, weight, bias, expected):
        errors = report.line_errors(weight, bias)
        assert (errors["weight"], errors["bias"]) == (weight, bias)
        assert (errors["weight_error"], errors["bias_error"], errors["weight_error_percent"],
                errors["bias_error_percent"], errors["quality"]) == expected


class TestQuality:
    @pytest.mark.parametrize(("limit", "below", "at"), [
        (0.01, "excellent", "good"), (0.05, "good", "fair"), (0.1, "fair", "poor")])
    def test_boundaries(self, limit, below, at):
        assert report.quality(np.nextafter(limit, 0)) == below
        assert report.quality(limit) == at

    def test_ends(self):
        assert report.quality(0.0) == "excellent"
        assert report.quality(float("inf")) == "poor"


class TestLines:
    def test_line(self):
        assert report.lines(report.line_errors(2.5, 0.75)) == [
            "weight 2.500000, off by 0.500000 (25.000 %)", "bias   0.750000, off by 0.250000 (25.000 %)",
            "quality: poor"]

    def test_accuracy(self):
        assert report.lines({"accuracy": 0.75, "correct": 3, "samples": 4}) == ["test accuracy 0.7500 (3 of 4)"]

    def test_regression(self):
        assert report.lines({"mae": 0.5, "rmse": 1 / 3}) == ["test mae 0.5", "test rmse 0.333333"]
