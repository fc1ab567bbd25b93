"""Tests of jaxnn/experiment/plots.py."""

import struct

import numpy as np
import pytest
import sklearn.metrics
from matplotlib import image
from matplotlib.colors import to_hex

from jaxnn.experiment import datasets, plots, records
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import Dataset

LINE = {"output/kernel": np.array([[2.5]], np.float32), "output/bias": np.array([0.5], np.float32)}
LINEAR = datasets.linear(Experiment(num_samples=20))


def classes(task, count):
    targets = np.arange(12) % count
    targets = targets[:, None].astype(np.float32) if task == "binary" else targets.astype(np.int32)
    inputs = np.zeros((12, 2), np.float32)
    return Dataset(inputs, targets, inputs, targets, task, tuple(f"class {i}" for i in range(count)))


def draw(workdir, experiment, data, outputs, losses=(1.0, 0.1)):
    writer = records.MetricsWriter(workdir)
    for epoch, loss in enumerate(losses):
        writer.write({"epoch": epoch + 1, "train_loss": loss, "test_loss": 2 * loss})
    plots.draw(experiment, data, workdir, LINE, outputs)
    return sorted((workdir / "plots").iterdir())


def assert_is_a_picture(path):
    """A whole PNG of the size asked for, with something on it."""
    content = path.read_bytes()
    assert content[:16] == b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    width, height = struct.unpack(">II", content[16:24])
    assert min(width, height) >= 300
    assert content[-8:-4] == b"IEND"
    pixels = image.imread(path)
    assert pixels.shape[:2] == (height, width)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 2


class TestDraw:
    @pytest.mark.parametrize(("experiment", "data", "outputs", "names"), [
        (Experiment(), LINEAR, LINEAR.test_targets, ["fit", "learning_curve"]),
        (Experiment(model="mlp"), LINEAR, LINEAR.test_targets, ["learning_curve"]),
        (Experiment(dataset="breast_cancer"), classes("binary", 2), np.linspace(-1, 1, 12)[:, None],
         ["confusion_matrix", "learning_curve"]),
        (Experiment(dataset="digits"), classes("multiclass", 10), np.eye(12, 10),
         ["confusion_matrix", "learning_curve"]),
    ], ids=["line", "regression", "binary", "multiclass"])
    def test_writes_the_tasks_pictures(self, tmp_path, experiment, data, outputs, names):
        paths = draw(tmp_path, experiment, data, outputs)
        assert [path.name for path in paths] == [f"{name}.png" for name in names]
        for path in paths:
            assert_is_a_picture(path)

    @pytest.mark.parametrize("losses", [(0.5,), (0.5, 0.0), (0.0, 0.0)], ids=["one epoch", "ends at 0", "all 0"])
    def test_degenerate_losses(self, tmp_path, losses):
        for path in draw(tmp_path, Experiment(model="mlp"), LINEAR, LINEAR.test_targets, losses):
            assert_is_a_picture(path)


class TestLearningCurve:
    def test_shows_both_losses_on_a_log_scale(self):
        metrics = {"epoch": np.array([1, 2]), "train_loss": np.array([3.0, 1]), "test_loss": np.array([4.0, 2])}
        (axes,) = plots.learning_curve(metrics, "binary_cross_entropy").axes
        train, test = axes.lines
        assert (list(train.get_ydata()), train.get_label()) == ([3, 1], "training")
        assert (list(test.get_ydata()), test.get_label()) == ([4, 2], "test")
        assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "loss (binary cross entropy)")
        assert train.get_linestyle() != test.get_linestyle()


class TestFitLine:
    def test_draws_the_fitted_and_the_true_line(self):
        (axes,) = plots.fit_line(LINEAR, 2.5, 0.5).axes
        true, fitted = axes.lines
        x = fitted.get_xdata()
        np.testing.assert_array_equal(x, [LINEAR.test_inputs.min(), LINEAR.test_inputs.max()])
        np.testing.assert_array_equal(fitted.get_ydata(), np.float32(2.5) * x + np.float32(0.5))
        np.testing.assert_array_equal(true.get_ydata(), 2 * x + 1)
        assert fitted.get_label() == "fitted: y = 2.5000x + 0.5000"


class TestConfusionMatrix:
    @pytest.mark.parametrize(("task", "count"), [("binary", 2), ("multiclass", 10)])
    def test_counts_are_scikit_learns(self, task, count):
        data, predicted = classes(task, count), np.random.default_rng(0).integers(0, count, 12)
        (axes,) = plots.confusion_matrix(data, predicted).axes
        expected = sklearn.metrics.confusion_matrix(data.test_targets.reshape(-1), predicted, labels=range(count))
        np.testing.assert_array_equal(axes.images[0].get_array(), expected)
        assert [int(text.get_text()) for text in axes.texts] == expected.reshape(-1).tolist()
        assert [label.get_text() for label in axes.get_xticklabels()] == list(data.class_names)

    def test_numbers_stand_out(self):
        data = classes("binary", 2)
        (axes,) = plots.confusion_matrix(data, np.zeros(12, int)).axes
        assert [to_hex(text.get_color()) for text in axes.texts] == ["#ffffff", "#000000", "#ffffff", "#000000"]
