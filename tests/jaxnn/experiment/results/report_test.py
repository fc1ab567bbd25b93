"""Tests of jaxnn/experiment/results/report.py."""

import numpy as np
import pytest

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import report

PARAMS = {
    "output/kernel": np.array([[2.5]], np.float32),
    "output/bias": np.array([0.75], np.float32),
}


def dataset(targets, task, classes=()):
    targets = np.asarray(targets)
    inputs = np.zeros((len(targets), 1), np.float32)
    return Dataset(
        inputs,
        targets,
        inputs,
        targets,
        task,
        tuple(map(str, range(classes))) if classes else (),
    )


def final_of(dataset_name, data, outputs, params=PARAMS, **flags):
    return report.final_metrics(
        Experiment(dataset=dataset_name, **flags), data, params, np.asarray(outputs)
    )


class TestFinalMetrics:
    def test_regression(self):
        data = dataset(np.array([[1], [2], [6]], np.float32), "regression")
        final = final_of("approximation", data, np.array([[1.5], [2], [4]], np.float32))
        assert final == {
            "mae": 2.5 / 3,
            "rmse": np.sqrt(4.25 / 3),
            "r2": 1 - 4.25 / 14,
            "max_error": 2.0,
        }

    def test_binary(self):
        data = dataset(np.array([[1], [0], [0], [1]], np.float32), "binary", 2)
        assert final_of("breast_cancer", data, [[3.0], [-1], [2], [0]]) == {
            "accuracy": 0.75,
            "correct": 3,
            "samples": 4,
            "positive_class": "1",
            "precision": 2 / 3,
            "recall": 1.0,
            "f1": 0.8,
            "roc_auc": 0.75,
        }

    def test_multiclass(self):
        data = dataset(np.array([2, 0, 1, 1], np.int32), "multiclass", 3)
        final = final_of("digits", data, np.eye(3, dtype=np.float32)[[2, 0, 0, 1]])
        assert final == {
            "accuracy": 0.75,
            "correct": 3,
            "samples": 4,
            "precision": pytest.approx((0.5 + 1 + 1) / 3),
            "recall": pytest.approx((1 + 0.5 + 1) / 3),
            "f1": pytest.approx((2 / 3 + 2 / 3 + 1) / 3),
            "roc_auc": pytest.approx((5 / 6 + 0.75 + 1) / 3),
        }

    def test_top_3_of_more_classes_than_that(self):
        data = dataset(np.array([0, 1, 2, 3], np.int32), "multiclass", 4)
        assert final_of("digits", data, [[4, 3, 2, 1]] * 4)["top_3_accuracy"] == 0.75

    def test_language(self):
        data = dataset(np.zeros((3, 2), np.int32), "language", 8)
        final = final_of("text", data, np.zeros((3, 2, 8), np.float32))
        assert final == {
            "bits_per_character": pytest.approx(3),
            "perplexity": pytest.approx(8),
        }

    def test_a_perplexity_beyond_float64_is_left_out(self):
        data = dataset(np.zeros((1, 1), np.int32), "language", 2)
        assert final_of("text", data, [[[0.0, 1000.0]]]).keys() == {
            "bits_per_character"
        }

    @pytest.mark.parametrize(
        ("data", "outputs", "absent"),
        [
            (dataset([[1.0], [1]], "regression"), [[1.0], [2]], {"r2"}),
            (dataset([[1.0], [1]], "binary", 2), [[1.0], [2]], {"roc_auc"}),
            (dataset([[0.0], [1]], "binary", 2), [[-1.0], [-2]], {"precision"}),
            (
                dataset([[0.0], [0]], "binary", 2),
                [[-1.0], [-2]],
                {"precision", "recall", "f1", "roc_auc"},
            ),
            (dataset([0, 0], "multiclass", 2), [[0, 1], [1, 0]], {"roc_auc"}),
        ],
        ids=[
            "constant target",
            "one class",
            "none predicted",
            "none positive",
            "a class missing",
        ],
    )
    def test_what_is_not_defined_is_left_out(self, data, outputs, absent):
        final = final_of("csv", data, outputs)
        expected = {
            "regression": {"mae", "rmse", "r2", "max_error"},
            "binary": {
                "accuracy",
                "correct",
                "samples",
                "positive_class",
                "precision",
                "recall",
                "f1",
                "roc_auc",
            },
            "multiclass": {
                "accuracy",
                "correct",
                "samples",
                "precision",
                "recall",
                "f1",
                "roc_auc",
            },
        }
        assert final.keys() - {"linear_regression_r2"} == expected[data.task] - absent
        assert all(
            np.isfinite(value)
            for name, value in final.items()
            if name != "positive_class"
        )

    def test_baselines(self):
        # All features 0: the plane is flat.
        data = dataset([[1.0], [2.0]], "regression")
        assert final_of("diabetes", data, [[1.0], [2.0]])["linear_regression_r2"] == 0
        windows = np.array([[[0.0], [3.0]]])
        data = Dataset(
            windows, np.array([[5.0]]), windows, np.array([[5.0]]), "regression"
        )
        assert final_of("sine", data, [[4.0]]) == {
            "mae": 1,
            "rmse": 1,
            "max_error": 1,
            "persistence_rmse": 2,
            "times_below_persistence": 2,
        }
        assert "times_below_persistence" not in final_of("sine", data, [[5.0]])

    def test_the_line_is_judged_only_for_linear_on_linear(self):
        data = dataset([[1.0]], "regression")
        outputs = np.array([[1.5]], np.float32)
        assert final_of("linear", data, outputs) == {
            "mae": 0.5,
            "rmse": 0.5,
            "max_error": 0.5,
            "weight": 2.5,
            "bias": 0.75,
            "weight_error": 0.5,
            "bias_error": 0.25,
            "weight_error_percent": 25.0,
            "bias_error_percent": 25.0,
            "quality": "poor",
        }
        assert "quality" not in final_of("linear", data, outputs, model="mlp")


class TestPredictedClasses:
    def test_binary_is_the_sign_with_zero_as_one(self):
        predicted = report.predicted_classes(
            dataset([[0.0]], "binary", 2), np.array([[-1.0], [-0.0], [0], [1]])
        )
        np.testing.assert_array_equal(predicted, [0, 1, 1, 1])

    def test_multiclass_is_the_largest_and_the_first_of_equals(self):
        outputs = np.array([[0, 2, 1], [5, 5, 5], [-3, -2, -1]])
        np.testing.assert_array_equal(
            report.predicted_classes(dataset([0], "multiclass", 3), outputs), [1, 0, 2]
        )


class TestLineErrors:
    @pytest.mark.parametrize(
        ("weight", "bias", "expected"),
        [
            (2.0, 1.0, (0, 0, 0, 0, "excellent")),
            (2.25, 1.0, (0.25, 0, 12.5, 0, "poor")),
            (2.0, 0.96875, (0, 0.03125, 0, 3.125, "good")),
            (1.9375, 1.03125, (0.0625, 0.03125, 3.125, 3.125, "fair")),
        ],
    )
    def test_absolute_and_per_cent(self, weight, bias, expected):
        errors = report.line_errors(weight, bias)
        assert (errors["weight"], errors["bias"]) == (weight, bias)
        assert (
            errors["weight_error"],
            errors["bias_error"],
            errors["weight_error_percent"],
            errors["bias_error_percent"],
            errors["quality"],
        ) == expected


class TestQuality:
    @pytest.mark.parametrize(
        ("limit", "below", "at"),
        [(0.01, "excellent", "good"), (0.05, "good", "fair"), (0.1, "fair", "poor")],
    )
    def test_boundaries(self, limit, below, at):
        assert report.quality(np.nextafter(limit, 0)) == below
        assert report.quality(limit) == at

    def test_ends(self):
        assert report.quality(0.0) == "excellent"
        assert report.quality(float("inf")) == "poor"


class TestLines:
    def test_line(self):
        assert report.lines(report.line_errors(2.5, 0.75)) == [
            "weight 2.500000, off by 0.500000 (25.000 %)",
            "bias   0.750000, off by 0.250000 (25.000 %)",
            "quality: poor",
        ]

    def test_accuracy(self):
        assert report.lines({"accuracy": 0.75, "correct": 3, "samples": 4}) == [
            "test accuracy 0.7500 (3 of 4)"
        ]

    def test_scores_of_classes(self):
        final = {
            "accuracy": 0.75,
            "correct": 3,
            "samples": 4,
            "top_3_accuracy": 1.0,
            "precision": 2 / 3,
            "recall": 0.5,
            "f1": 0.8,
            "roc_auc": 0.125,
        }
        line = (
            "test precision 0.6667, recall 0.5000, F1 0.8000, ROC AUC 0.1250, top-3 "
            "accuracy 1.0000"
        )
        assert report.lines(final) == ["test accuracy 0.7500 (3 of 4)", line]
        del final["top_3_accuracy"], final["precision"]
        line = (
            "test recall 0.5000, F1 0.8000, ROC AUC 0.1250; class benign against "
            "the rest"
        )
        assert report.lines(final | {"positive_class": "benign"})[1:] == [line]

    def test_regression(self):
        assert report.lines(
            {"mae": 0.5, "rmse": 1 / 3, "r2": 0.25, "max_error": 2.0}
        ) == ["test mae 0.5", "test rmse 0.333333", "test r2 0.25", "test max error 2"]

    def test_baselines(self):
        assert report.lines(
            {"rmse": 0.5, "persistence_rmse": 2.0, "times_below_persistence": 4.0}
        ) == ["test rmse 0.5", "persistence: rmse 2, 4 times the network's"]
        assert report.lines({"persistence_rmse": 2.0}) == ["persistence: rmse 2"]
        assert report.lines({"linear_regression_r2": 0.5}) == [
            "linear regression: r2 0.5"
        ]

    def test_language(self):
        assert report.lines({"bits_per_character": 3.0, "perplexity": 8.0}) == [
            "test bits per character 3",
            "test perplexity 8",
        ]

    @pytest.mark.parametrize(
        "final",
        [
            {"mae": 0.5},
            report.line_errors(2.0, 1.0),
            {"accuracy": 1.0, "correct": 1, "samples": 1},
        ],
    )
    def test_gaps_come_last(self, final):
        assert report.lines(final | {"loss_gap": 0.125, "mae_gap": 0.5}) == [
            *report.lines(final),
            "gap to the training split: loss 0.125, mae 0.5",
        ]
