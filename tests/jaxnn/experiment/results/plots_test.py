"""Tests of jaxnn/experiment/results/plots/."""

import dataclasses
import itertools
import struct

import numpy as np
import pytest
import sklearn.metrics
from matplotlib import image
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from PIL import Image

from jaxnn.experiment.data import preprocessing
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.sources.generated import linear
from jaxnn.experiment.files import artifacts, trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import plots
from jaxnn.experiment.results.plots import (
    animation,
    boundary,
    confusion,
    functions,
    learning,
    line,
)

META = {
    "stack": "jax",
    "precision": "fp32",
    "world_size": 1,
    "flags": [],
    "versions": {},
}
LINE = {
    "output/kernel": np.array([[2.5]], np.float32),
    "output/bias": np.array([0.5], np.float32),
}
LINEAR = linear(Experiment(num_samples=20))
METRICS = {
    "epoch": np.array([1, 2, 3]),
    "train_loss": np.array([3.0, 1, 0.5]),
    "test_loss": np.array([4.0, 2, 5]),
}


def classes(task, count, features=3):
    targets = np.arange(12) % count
    targets = (
        targets[:, None].astype(np.float32)
        if task == "binary"
        else targets.astype(np.int32)
    )
    train, test = (
        np.random.default_rng(0).standard_normal((2, 12, features)).astype(np.float32)
    )
    return Dataset(
        train, targets, test, targets, task, tuple(f"class {i}" for i in range(count))
    )


def sequence():
    windows = np.random.default_rng(0).standard_normal((400, 5, 1)).astype(np.float32)
    return Dataset(windows, windows[:, 0], windows, windows[:, 0], "regression")


def scaled(data):
    scaling = preprocessing.fit("standardize", data.train_inputs)
    return dataclasses.replace(
        data,
        scaling=scaling,
        train_inputs=scaling.apply(data.train_inputs),
        test_inputs=scaling.apply(data.test_inputs),
    )


def first_feature(inputs):
    """A binary classifier: class 1 where the first feature is at least 0.25."""
    return inputs[:, :1] - np.float32(0.25)


def draw(workdir, experiment, data, outputs, losses=(1.0, 0.1), predict=None):
    writer = artifacts.MetricsWriter(workdir)
    for epoch, loss in enumerate(losses):
        writer.write({"epoch": epoch + 1, "train_loss": loss, "test_loss": 2 * loss})
    writer.close()
    plots.draw(experiment, data, workdir, LINE, outputs, predict)
    return sorted((workdir / "plots").iterdir())


def record(workdir, kernels):
    """A trace of a classifier with these kernels, one per step, on samples 0, 1, ..."""
    writer = trace.Writer(workdir / "trace", "params", META)
    bias = np.zeros(1, np.float32)
    params = [
        {"output": {"kernel": np.array(kernel, np.float32)[:, None], "bias": bias}}
        for kernel in kernels
    ]
    for step, (before, after) in enumerate(itertools.pairwise(params)):
        writer.write(
            step,
            {
                "batch/ids": np.array([step], np.int32),
                "params": before,
                "updated": after,
            },
        )


def assert_is_a_picture(path):
    """A whole PNG of the size asked for, with something on it."""
    content = path.read_bytes()
    assert content[:16] == b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    width, height = struct.unpack(">II", content[16:24])
    assert min(width, height) >= 300
    assert content[-8:-4] == b"IEND"
    pixels = image.imread(path)
    assert pixels.shape[:2] == (height, width)
    assert len(np.unique(pixels[..., 0])) > 2


class TestDraw:
    @pytest.mark.parametrize(
        ("experiment", "data", "outputs", "names"),
        [
            (Experiment(), LINEAR, LINEAR.test_targets, ["fit", "learning_curve"]),
            (
                Experiment(model="mlp"),
                LINEAR,
                LINEAR.test_targets,
                ["learning_curve", "predicted_over_true"],
            ),
            (
                Experiment(dataset="approximation"),
                LINEAR,
                LINEAR.test_targets,
                ["approximation", "learning_curve"],
            ),
            (
                Experiment(dataset="sine"),
                sequence(),
                np.zeros((400, 1)),
                ["forecast", "learning_curve"],
            ),
            (
                Experiment(dataset="breast_cancer"),
                classes("binary", 2),
                np.linspace(-1, 1, 12)[:, None],
                ["confusion_matrix", "learning_curve"],
            ),
            (
                Experiment(dataset="digits"),
                classes("multiclass", 10),
                np.eye(12, 10),
                ["confusion_matrix", "learning_curve"],
            ),
            (
                Experiment(dataset="csv"),
                classes("multiclass", 21),
                np.eye(12, 21),
                ["learning_curve"],
            ),
            (
                Experiment(dataset="text"),
                dataclasses.replace(classes("multiclass", 2), task="language"),
                np.zeros((12, 5, 2)),
                ["learning_curve"],
            ),
            (
                Experiment(dataset="iris"),
                classes("multiclass", 3, features=2),
                np.eye(12, 3),
                ["confusion_matrix", "learning_curve"],
            ),
        ],
        ids=[
            "line",
            "regression",
            "approximation",
            "sine",
            "binary",
            "multiclass",
            "many classes",
            "language",
            "no predict",
        ],
    )
    def test_writes_the_tasks_pictures(
        self, tmp_path, experiment, data, outputs, names
    ):
        paths = draw(tmp_path, experiment, data, outputs)
        assert [path.name for path in paths] == [f"{name}.png" for name in names]
        for path in paths:
            assert_is_a_picture(path)

    @pytest.mark.parametrize(
        "losses",
        [(0.5,), (0.5, 0.0), (0.0, 0.0)],
        ids=["one epoch", "ends at 0", "all 0"],
    )
    def test_degenerate_losses(self, tmp_path, losses):
        for path in draw(
            tmp_path, Experiment(model="mlp"), LINEAR, LINEAR.test_targets, losses
        ):
            assert_is_a_picture(path)

    def test_two_features_and_a_recording(self, tmp_path):
        record(tmp_path, [(0, 0), (1, 0), (1, 1)])
        data = classes("binary", 2, features=2)
        paths = draw(
            tmp_path,
            Experiment(dataset="csv"),
            data,
            first_feature(data.test_inputs),
            predict=first_feature,
        )
        assert [path.name for path in paths] == [
            "confusion_matrix.png",
            "decision_boundary.gif",
            "decision_boundary.png",
            "learning_curve.png",
        ]
        assert_is_a_picture(tmp_path / "plots" / "decision_boundary.png")


class TestLine:
    METRICS = METRICS | {
        "weight": np.array([-1, 1.5, 2]),
        "bias": np.array([3.5, 0.5, 1]),
    }

    def test_drawn_where_the_columns_are(self, tmp_path):
        writer = artifacts.MetricsWriter(tmp_path)
        for values in zip(*self.METRICS.values()):
            writer.write(dict(zip(self.METRICS, map(float, values))))
        writer.close()
        plots.draw(Experiment(), LINEAR, tmp_path, LINE, LINEAR.test_targets)
        for name in ("parameters", "loss_surface"):
            assert_is_a_picture(tmp_path / "plots" / f"{name}.png")

    @pytest.mark.parametrize("data", [LINEAR, scaled(LINEAR)], ids=["plain", "scaled"])
    def test_the_true_line_costs_nothing_and_another_its_squared_error(self, data):
        weight, bias = line.true_line(data)
        weights, biases = np.array([[weight, 3]]), np.array([[bias, -2]])
        x, t = data.train_inputs.astype(np.float64), data.train_targets
        costs = line.squared_error(data, weights, biases)
        assert costs.shape == (1, 2)
        assert costs[0, 0] == pytest.approx(0, abs=1e-12)
        assert costs[0, 1] == pytest.approx(np.mean((3 * x - 2 - t) ** 2), rel=1e-9)

    def test_parameters_come_to_their_true_values(self):
        (axes,) = line.parameters(self.METRICS, LINEAR).axes
        values = [list(curve.get_ydata()) for curve in axes.lines]
        assert values == [[2, 2], [-1, 1.5, 2], [1, 1], [3.5, 0.5, 1]]
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["weight, true 2", "bias, true 1"]

    def test_the_path_lies_on_the_surface(self):
        (axes,) = line.loss_surface(self.METRICS, LINEAR).axes
        path, first, true = (list(zip(*x.get_data())) for x in axes.lines)
        assert path == [(-1, 3.5), (1.5, 0.5), (2, 1)]
        assert first == [(-1, 3.5)]
        assert true == [(2, 1)]
        for (low, high), values in zip((axes.get_xlim(), axes.get_ylim()), zip(*path)):
            assert low < min(values) < max(values) < high

    def test_a_run_of_one_epoch_that_stood_still(self):
        metrics = {"epoch": [1.0], "weight": [2.0], "bias": [1.0]}
        alone = {name: np.array(values) for name, values in metrics.items()}
        (axes,) = line.loss_surface(alone, LINEAR).axes
        assert axes.get_xlim() == pytest.approx((1.9, 2.1))
        assert line.parameters(alone, LINEAR).axes[0].lines[1].get_marker() == "o"


class TestLearningCurve:
    def test_shows_both_losses_on_a_log_scale(self):
        (axes,) = learning.learning_curve(
            METRICS, Experiment(loss="binary_cross_entropy")
        ).axes
        train, test, best = axes.lines
        assert (list(train.get_ydata()), train.get_label()) == ([3, 1, 0.5], "training")
        assert (list(test.get_ydata()), test.get_label()) == ([4, 2, 5], "test")
        assert (list(best.get_xdata()), list(best.get_ydata())) == ([2], [2])
        assert best.get_label() == "best test loss: epoch 2"
        assert (axes.get_yscale(), axes.get_ylabel()) == (
            "log",
            "loss (binary cross entropy)",
        )
        assert train.get_linestyle() != test.get_linestyle()

    def test_shows_the_other_splits_and_marks_the_best_validation_loss(self):
        more = dict(
            validation_loss=np.array([2.0, 3, 1]),
            evaluated_train_loss=np.array([1.0, 1, 1]),
        )
        (axes,) = learning.learning_curve(METRICS | more, Experiment()).axes
        lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        assert lines == {
            "training": [3, 1, 0.5],
            "training, evaluated": [1, 1, 1],
            "validation": [2, 3, 1],
            "test": [4, 2, 5],
            "best validation loss: epoch 3": [1],
        }
        styles = [line.get_linestyle() for line in axes.lines[:-1]]
        assert len(set(styles)) == len(styles)

    @pytest.mark.parametrize(
        ("flags", "best"),
        [
            ({"patience": 3, "min_delta": 0.5}, 0),
            ({"patience": 3, "min_delta": 0.0}, 2),
            ({"min_delta": 0.5}, 2),
        ],
    )
    def test_the_best_epoch_is_the_one_that_early_stopping_keeps(self, flags, best):
        metrics = {
            "epoch": np.array([1, 2, 3]),
            "validation_loss": np.array([1.0, 0.75, 0.625]),
        }
        assert learning.best_epoch(metrics, Experiment(**flags)) == ("validation", best)

    @pytest.mark.parametrize(
        ("losses", "scale"), [((1, 0, 0, 0), "linear"), ((1, 0.5, 0.25, 0), "log")]
    )
    def test_a_log_scale_needs_losses_above_0(self, losses, scale):
        metrics = {
            "epoch": np.arange(1, 5),
            "train_loss": np.array(losses),
            "test_loss": np.array(losses),
        }
        assert (
            learning.learning_curve(metrics, Experiment(loss="perceptron"))
            .axes[0]
            .get_yscale()
            == scale
        )

    def test_numbers_are_plain(self):
        figure = learning.learning_curve(
            METRICS | {"test_loss": np.array([0.02, 0.03, 0.05])}, Experiment()
        )
        figure.draw_without_rendering()
        labels = [
            label.get_text() for label in figure.axes[0].get_yticklabels(which="both")
        ]
        assert {"0.01", "0.1", "1"} < set(labels)


class TestFitLine:
    def test_draws_the_fitted_and_the_true_line(self):
        (axes,) = functions.fit_line(LINEAR, 2.5, 0.5).axes
        true, fitted = axes.lines
        x = fitted.get_xdata()
        np.testing.assert_array_equal(
            x, [LINEAR.test_inputs.min(), LINEAR.test_inputs.max()]
        )
        np.testing.assert_array_equal(
            fitted.get_ydata(), np.float32(2.5) * x + np.float32(0.5)
        )
        np.testing.assert_array_equal(true.get_ydata(), 2 * x + 1)
        assert fitted.get_label() == "fitted: y = 2.5000x + 0.5000"


class TestPredictedOverTrue:
    def test_points_and_diagonal(self):
        targets = np.array([[1.0], [2], [6]])
        data = Dataset(targets, targets, targets, targets, "regression")
        (axes,) = functions.predicted_over_true(data, np.array([[1.5], [2], [4]])).axes
        np.testing.assert_array_equal(
            axes.collections[0].get_offsets(), [[1, 1.5], [2, 2], [6, 4]]
        )
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 1], [6, 6]])
        # 1 - 4.25 / 14.
        assert axes.collections[0].get_label() == "test data, $R^2$ = 0.696"

    def test_a_constant_target_has_no_r2(self):
        data = dataclasses.replace(
            LINEAR, test_targets=np.ones_like(LINEAR.test_targets)
        )
        (axes,) = functions.predicted_over_true(data, data.test_inputs).axes
        assert axes.collections[0].get_label() == "test data"


class TestApproximation:
    @pytest.mark.parametrize("scale", [False, True])
    def test_is_sorted_and_in_the_function_s_own_units(self, scale):
        x = np.array([[0.5], [0.25], [1]], np.float32)
        data = Dataset(x, 2 * x, x, 2 * x, "regression")
        figure = functions.approximation(
            scaled(data) if scale else data,
            np.array([[1.5], [0.5], [2]]),
            "square_wave",
        )
        above, below = figure.axes
        true, network = above.lines
        # A scaled float32 and back.
        np.testing.assert_allclose(true.get_xdata(), [0.25, 0.5, 1], rtol=2**-22)
        assert (list(true.get_ydata()), list(network.get_ydata())) == (
            [0.5, 1, 2],
            [0.5, 1.5, 2],
        )
        assert list(below.lines[1].get_ydata()) == [0, 0.5, 0]
        assert above.get_title() == "Approximation of square wave (test)"


class TestForecast:
    def test_shows_the_start_of_the_test_split_beside_persistence(self):
        data = sequence()
        exact = {
            name: np.round(getattr(data, name))
            for name in ("test_targets", "test_inputs")
        }
        data = dataclasses.replace(data, **exact)
        figure = functions.forecast(data, np.full((400, 1), 2.0))
        above, below = figure.axes
        shown = data.test_targets[:300, 0]
        last = data.test_inputs[:300, 4, 0]
        for axes, expected in (
            (above, [shown, np.full(300, 2), last]),
            (below, [2 - shown, last - shown]),
        ):
            for curve, values in zip(axes.lines[-len(expected) :], expected):
                np.testing.assert_array_equal(curve.get_ydata(), values)
        assert [line.get_label() for line in above.lines] == [
            "true",
            "network",
            "persistence",
        ]


class TestConfusionMatrix:
    @pytest.mark.parametrize(("task", "count"), [("binary", 2), ("multiclass", 10)])
    def test_counts_are_scikit_learns(self, task, count):
        data = classes(task, count)
        predicted = np.random.default_rng(0).integers(0, count, 12)
        (axes,) = confusion.confusion_matrix(data, predicted).axes
        expected = sklearn.metrics.confusion_matrix(
            data.test_targets.reshape(-1), predicted, labels=range(count)
        )
        np.testing.assert_array_equal(axes.images[0].get_array(), expected)
        assert [int(text.get_text()) for text in axes.texts] == expected.reshape(
            -1
        ).tolist()
        assert [label.get_text() for label in axes.get_xticklabels()] == list(
            data.class_names
        )

    def test_numbers_stand_out(self):
        data = classes("binary", 2)
        (axes,) = confusion.confusion_matrix(data, np.zeros(12, int)).axes
        assert [to_hex(text.get_color()) for text in axes.texts] == [
            "#ffffff",
            "#000000",
            "#ffffff",
            "#000000",
        ]

    @pytest.mark.parametrize("count", [2, 10, confusion.MOST_CLASSES])
    def test_names_do_not_overlap(self, count):
        data = dataclasses.replace(
            classes("multiclass", count), class_names=("a long class name",) * count
        )
        figure = confusion.confusion_matrix(data, np.zeros(12, int))
        figure.draw_without_rendering()
        boxes = [
            label.get_window_extent() for label in figure.axes[0].get_xticklabels()
        ]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


class TestIsPlane:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (classes("binary", 2, features=2), True),
            (classes("multiclass", 10, features=2), True),
            (classes("multiclass", 11, features=2), False),
            (classes("binary", 2), False),
            (LINEAR, False),
            (
                dataclasses.replace(
                    classes("binary", 2, features=2), task="regression"
                ),
                False,
            ),
        ],
    )
    def test_two_features_of_a_classification(self, data, expected):
        assert boundary.is_plane(data) == expected


class TestDecisionBoundary:
    def test_regions_are_the_predicted_classes_in_measured_units(self):
        names = ("length (cm)", "width (cm)")
        data = scaled(
            dataclasses.replace(classes("binary", 2, features=2), feature_names=names)
        )
        (axes,) = boundary.decision_boundary(data, first_feature).axes
        regions = axes.images[0].get_array()
        left, right, low, high = axes.images[0].get_extent()
        border = data.scaling.invert(np.array([[0.25, 0]]))[0, 0]
        x = np.linspace(left, right, boundary.SIDE)
        # float32 grid points on the border itself.
        far = np.abs(x - border) > 1e-5 * (right - left)
        np.testing.assert_array_equal(
            regions[:, far], np.broadcast_to(x > border, regions.shape)[:, far]
        )
        assert (axes.get_xlabel(), axes.get_ylabel()) == names
        scatters = [
            artist for artist in axes.collections if isinstance(artist, PathCollection)
        ]
        points = np.concatenate([scatter.get_offsets() for scatter in scatters])
        inside = (points > [left, low]).all() and (points < [right, high]).all()
        assert (len(points), inside) == (24, True)

    def test_rows_of_the_picture_go_up_the_second_feature(self):
        plane = boundary.Plane(classes("multiclass", 3, features=2))
        plane.show(
            np.concatenate(
                [plane.grid, np.zeros((len(plane.grid), 1), np.float32)], axis=1
            )
        )
        left, right, low, high = plane.axes.images[0].get_extent()
        x, y = np.meshgrid(
            np.linspace(left, right, boundary.SIDE),
            np.linspace(low, high, boundary.SIDE),
        )
        expected = np.argmax([x, y, 0 * x], axis=0)
        np.testing.assert_array_equal(plane.axes.images[0].get_array(), expected)
        assert plane.axes.images[0].origin == "lower"
        assert set(expected.ravel()) == {0, 1, 2}

    def test_a_plane_without_a_border(self):
        data = classes("binary", 2, features=2)
        (axes,) = boundary.decision_boundary(
            data, lambda inputs: np.ones((len(inputs), 1), np.float32)
        ).axes
        assert np.unique(axes.images[0].get_array()) == [1]

    def test_equal_features_and_equal_splits(self):
        data = classes("binary", 2, features=2)
        inputs = np.zeros_like(data.test_inputs)
        data = dataclasses.replace(data, train_inputs=inputs, test_inputs=inputs)
        (axes,) = boundary.decision_boundary(data, first_feature).axes
        assert axes.get_title() == "Decision boundary"

    @pytest.mark.parametrize("count", [2, 3, len(boundary.MARKERS)])
    def test_classes_differ_without_color(self, count):
        plane = boundary.Plane(classes("multiclass", count, features=2))
        plane.scatter(np.zeros((count, 2)), np.arange(count), size=9)
        grays = [
            sum(scatter.get_facecolor()[0, :3] * (0.3, 0.59, 0.11))
            for scatter in plane.axes.collections
        ]
        assert (np.diff(grays) < -0.03).all()
        markers = [
            scatter.get_paths()[0].vertices.tobytes()
            for scatter in plane.axes.collections
        ]
        assert len(set(markers)) == count


class TestMargins:
    def test_is_the_distance_to_the_best_other(self):
        above = boundary.margins(np.array([[3.0, 1, -1], [2, 2, 0]]))
        np.testing.assert_array_equal(above, [[2, -2, -4], [0, 0, -2]])
        np.testing.assert_array_equal(
            boundary.margins(np.array([[3.0], [-1]])), [[3], [-1]]
        )


class TestAnimation:
    def test_frames_are_the_start_and_each_update(self, tmp_path):
        record(tmp_path, [(0, 0), (1, 0), (1, 1)])
        frames = animation.read_frames(trace.Reader(tmp_path / "trace"))
        assert [
            (
                f.update,
                f.params["output/kernel"].ravel().tolist(),
                f.params["output/bias"].tolist(),
                f.ids.tolist(),
            )
            for f in frames
        ] == [(0, [0, 0], [0], []), (1, [1, 0], [0], [0]), (2, [1, 1], [0], [1])]

    def test_updates_that_change_nothing_go_first(self, tmp_path):
        record(tmp_path, [(0, 0), (0, 0), (1, 0), (1, 0), (1, 1), (1, 1), (1, 1)])
        frames = animation.thinned(
            animation.read_frames(trace.Reader(tmp_path / "trace"))
        )
        assert [frame.update for frame in frames] == [0, 2, 4, 6]

    @pytest.mark.parametrize(
        "count", [1, animation.MOST_FRAMES, animation.MOST_FRAMES + 1, 500]
    )
    def test_at_most_so_many_frames_from_the_first_to_the_last(self, count):
        frames = [
            animation.Frame(n, {"kernel": np.full((2, 1), n)}, np.zeros(1, int))
            for n in range(count)
        ]
        updates = [frame.update for frame in animation.thinned(frames)]
        assert len(updates) == min(count, animation.MOST_FRAMES)
        assert (updates[0], updates[-1]) == (0, count - 1)
        assert updates == sorted(set(updates))

    def test_writes_a_gif_of_the_frames(self, tmp_path):
        record(tmp_path, [(0.5, 0), (1, 0), (1, 1)])
        animation.write(
            classes("binary", 2, features=2), tmp_path / "trace", tmp_path / "a.gif"
        )
        with Image.open(tmp_path / "a.gif") as film:
            assert film.n_frames == 3
            assert min(film.size) >= 300

    @pytest.mark.parametrize(
        "kernels", [[(1, 2, 3), (1, 2, 4)], [(0, 0)]], ids=["three features", "no step"]
    )
    def test_writes_nothing_of_another_recording(self, tmp_path, kernels):
        record(tmp_path, kernels)
        animation.write(
            classes("binary", 2, features=2), tmp_path / "trace", tmp_path / "a.gif"
        )
        assert not (tmp_path / "a.gif").exists()

    def test_writes_nothing_without_recorded_parameters(self, tmp_path):
        writer = trace.Writer(tmp_path / "trace", "losses", META)
        writer.write(0, {"batch/ids": np.array([0], np.int32), "loss": np.float32(1)})
        assert animation.read_frames(trace.Reader(tmp_path / "trace")) == []
