"""Tests of jaxnn/experiment/data/sources/images.py and openml.py."""

import gzip
import re
import urllib.error

import numpy as np
import pytest
import sklearn.datasets

from jaxnn.experiment.data.sources import images, openml
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from tests.jaxnn.experiment.data.sources.byte_files_test import cifar_bytes, idx_bytes

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (count, 5, 4), np.uint8) for count in (40, 10))
LABELS = np.tile(np.arange(10, dtype=np.uint8), 4)
TEST_LABELS = np.arange(10, dtype=np.uint8)
ARRAYS = dict(zip(images.MNIST_FILES, (TRAIN, LABELS, TEST, TEST_LABELS)))
CIFAR = [
    (RNG.integers(0, 256, (6, 32, 32, 3), np.uint8), RNG.integers(0, 10, 6, np.uint8))
    for _ in range(6)
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))


def write_mnist(folder, packed=False, **change):
    for name, array in (ARRAYS | change).items():
        content = idx_bytes(array)
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gzip.compress(content) if packed else content
        )


def write_cifar(folder):
    folder.mkdir(exist_ok=True)
    for name, batch in zip(images.CIFAR_FILES, CIFAR):
        (folder / name).write_bytes(cifar_bytes(*batch))


def load(dataset, folder, **change):
    return images.__dict__[dataset](
        Experiment(dataset=dataset, data_path=str(folder), **change)
    )


class TestMnist:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
    def test_reads_the_official_files(self, tmp_path, dataset, packed):
        write_mnist(tmp_path, packed)
        data = load(dataset, tmp_path)
        np.testing.assert_array_equal(data.train_inputs, TRAIN[..., None], strict=True)
        np.testing.assert_array_equal(data.test_inputs, TEST[..., None], strict=True)
        np.testing.assert_array_equal(
            data.train_targets, LABELS.astype(np.int32), strict=True
        )
        np.testing.assert_array_equal(
            data.test_targets, TEST_LABELS.astype(np.int32), strict=True
        )
        assert (data.task, data.num_outputs, data.kind) == ("multiclass", 10, "image")
        assert (
            data.class_names[9]
            == {"mnist": "9", "fashion_mnist": "Ankle boot"}[dataset]
        )

    @pytest.mark.parametrize("inside", [False, True])
    @pytest.mark.parametrize("end", ["", ".gz"])
    def test_names_of_7_zip_and_kaggle(self, tmp_path, end, inside):
        for name, array in ARRAYS.items():
            path = tmp_path / (name.replace("-idx", ".idx") + end)
            if inside:
                path.mkdir()
                path /= path.name
            path.write_bytes(idx_bytes(array))
        data = load("mnist", tmp_path)
        np.testing.assert_array_equal(data.train_inputs, TRAIN[..., None])

    def test_validation_is_stratified_and_from_the_training_files(self, tmp_path):
        write_mnist(tmp_path)
        data = load("mnist", tmp_path, validation_fraction=0.25)
        np.testing.assert_array_equal(np.bincount(data.validation_targets), np.ones(10))
        both = np.concatenate([data.train_inputs, data.validation_inputs])[..., 0]
        assert sorted(image.tobytes() for image in both) == sorted(
            image.tobytes() for image in TRAIN
        )

    def test_refuses_folds(self, tmp_path):
        with pytest.raises(
            UserError,
            match=r"^--num_folds: --dataset=mnist brings a test split of its own; "
            r"leave",
        ):
            load("mnist", tmp_path, num_folds=5)

    def test_a_missing_file_is_named(self, tmp_path):
        write_mnist(tmp_path)
        (tmp_path / "t10k-images-idx3-ubyte").unlink()
        with pytest.raises(
            UserError,
            match=rf"^--data_path: {tmp_path} has no file t10k-images-idx3-ubyte \(or ",
        ):
            load("mnist", tmp_path)

    @pytest.mark.parametrize(
        ("name", "array", "problem"),
        [
            (
                "train-labels-idx1-ubyte",
                LABELS[:-1],
                "has 39 labels for the 40 images of train-images-idx3-ubyte",
            ),
            (
                "t10k-labels-idx1-ubyte",
                TEST_LABELS + 1,
                "item 9 has the label 10; there are the classes 0 to 9",
            ),
            (
                "t10k-images-idx3-ubyte",
                TEST[:, 1:],
                "images of (4, 4) pixels, those to train on have (5, 4)",
            ),
            ("train-images-idx3-ubyte", TRAIN[:0], "holds no images"),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path, name, array, problem):
        write_mnist(tmp_path, **{name: array})
        with pytest.raises(
            UserError, match=rf"^--data_path: {tmp_path}/{name}: {re.escape(problem)}$"
        ):
            load("mnist", tmp_path)


class TestCifar10:
    @pytest.mark.parametrize("inside", ["", images.CIFAR_FOLDER])
    def test_reads_the_official_batches_in_order(self, tmp_path, inside):
        write_cifar(tmp_path / inside)
        data = load("cifar10", tmp_path)
        np.testing.assert_array_equal(
            data.train_inputs, np.concatenate([x for x, _ in CIFAR[:5]]), strict=True
        )
        np.testing.assert_array_equal(
            data.train_targets, np.concatenate([y for _, y in CIFAR[:5]])
        )
        np.testing.assert_array_equal(data.test_inputs, CIFAR[5][0], strict=True)
        assert (data.class_names[3], data.signature.input_shape) == ("cat", (32, 32, 3))

    def test_a_label_beyond_the_classes_names_the_file(self, tmp_path):
        write_cifar(tmp_path)
        (tmp_path / "data_batch_2.bin").write_bytes(
            cifar_bytes(CIFAR[0][0], [0, 1, 77, 0, 0, 0])
        )
        with pytest.raises(
            UserError,
            match=rf"^--data_path: {tmp_path}/data_batch_2\.bin: item 2 has the "
            "label 77; ",
        ):
            load("cifar10", tmp_path)

    def test_a_missing_batch_is_named(self, tmp_path):
        write_cifar(tmp_path)
        (tmp_path / "data_batch_5.bin").unlink()
        with pytest.raises(
            UserError, match=rf"^--data_path: {tmp_path} has no file data_batch_5\.bin "
        ):
            load("cifar10", tmp_path)


class TestDownload:
    @pytest.mark.parametrize("dataset", openml.NAMES)
    def test_splits_shapes_and_caches(self, monkeypatch, dataset):
        monkeypatch.setattr(openml, "NUM_TEST", 3)
        height, width, channels = openml.SHAPES[dataset]
        pixels = RNG.integers(0, 256, (33, height, width, channels), np.uint8)
        rows = pixels.transpose(0, 3, 1, 2).reshape(33, -1).astype(np.float64)
        labels = np.tile(np.arange(10), 4)[:33].astype(str).astype(object)
        monkeypatch.setattr(
            sklearn.datasets, "fetch_openml", lambda name, **_: (rows, labels)
        )
        first = load(dataset, "")
        monkeypatch.setattr(sklearn.datasets, "fetch_openml", None)
        for data in (first, load(dataset, "")):
            np.testing.assert_array_equal(data.train_inputs, pixels[:30], strict=True)
            np.testing.assert_array_equal(data.test_inputs, pixels[30:], strict=True)
            np.testing.assert_array_equal(data.test_targets, [0, 1, 2])

    @pytest.mark.parametrize(
        ("dataset", "name"),
        [("mnist", "t10k-labels-idx1-ubyte"), ("cifar10", "test_batch.bin")],
    )
    def test_offline_names_the_files(self, monkeypatch, dataset, name):
        def offline(*_, **__):
            raise urllib.error.URLError("no\nnetwork")

        monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
        with pytest.raises(
            UserError,
            match=rf"^--data_path: cannot download --dataset={dataset} \(<urlopen "
            "error no "
            rf"network>\); give the folder with the official files [^\n]*{name}$",
        ):
            load(dataset, "")

    @pytest.mark.parametrize(
        ("rows", "label", "problem"),
        [
            (np.zeros((33, 783)), 1, r"has the shape \[33, 783\]"),
            (np.zeros((2, 784)), 1, r"has the shape \[2, 784\]"),
            (np.full((33, 784), 0.5), 1, "holds what is no pixel"),
            (np.full((33, 784), 256.0), 1, "holds what is no pixel"),
            (np.zeros((33, 784)), 10, "holds what is no pixel or no label"),
        ],
    )
    def test_what_is_something_else_is_refused(self, monkeypatch, rows, label, problem):
        monkeypatch.setattr(openml, "NUM_TEST", 3)
        monkeypatch.setattr(
            sklearn.datasets,
            "fetch_openml",
            lambda name, **_: (rows, np.full(len(rows), str(label))),
        )
        with pytest.raises(
            UserError,
            match=rf"^--data_path: openml\.org's mnist_784 {problem}.*; give the "
            "folder",
        ):
            load("mnist", "")


class TestCifarForPython:
    @pytest.mark.parametrize("within", ["", images.CIFAR_PYTHON_FOLDER])
    def test_is_named(self, tmp_path, within):
        folder = tmp_path / within
        folder.mkdir(exist_ok=True)
        (folder / "data_batch_1").write_bytes(b"pickle")
        with pytest.raises(
            UserError,
            match=r"data_batch_1: is CIFAR-10's Python version, and the binary version "
            r"is needed: unpack cifar-10-binary\.tar\.gz",
        ):
            load("cifar10", tmp_path)
