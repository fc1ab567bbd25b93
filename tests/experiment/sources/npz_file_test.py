"""Tests of jaxnn/experiment/sources/npz_file.py."""

import re

import numpy as np
import pytest

from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.sources.npz_file import npz

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), np.tile([0, 1], 10)
VALUE = X[3, 1]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def load(tmp_path):
    def from_arrays(change=None, **arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return npz(Experiment(dataset="npz", data_path=str(tmp_path / "data.npz"), **(change or {})))

    return from_arrays


class TestNpz:
    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, bool])
    def test_a_table_becomes_float32(self, load, dtype):
        x = (RNG.random((20, 3)) * 100).astype(dtype)
        data = load(x=x, y=np.arange(20) + 0.5)
        assert (data.task, data.feature_names) == ("regression", ("x0", "x1", "x2"))
        order = (data.train_targets[:, 0] - 0.5).astype(int)
        np.testing.assert_array_equal(data.train_inputs, x[order].astype(np.float32), strict=True)

    @pytest.mark.parametrize(("x", "shape", "dtype"), [
        (RNG.normal(size=(20, 5, 2)), (5, 2), np.float32), (RNG.normal(size=(20, 4, 4, 3)), (4, 4, 3), np.float32),
        (RNG.integers(0, 256, (20, 4, 4, 3), np.uint8), (4, 4, 3), np.uint8),
        (RNG.integers(0, 256, (20, 4, 4), np.uint8), (4, 4, 1), np.uint8)])
    def test_sequences_and_images(self, load, x, shape, dtype):
        data = load(x=x, y=Y)
        assert (data.train_inputs.shape, data.train_inputs.dtype) == ((16, *shape), dtype)

    @pytest.mark.parametrize(("y", "task", "outputs"), [
        (Y, "binary", 1), (Y[:, None], "binary", 1), (np.array(["no", "yes"])[Y], "binary", 1),
        (np.tile(range(4), 5), "multiclass", 4), (RNG.normal(size=20), "regression", 1),
        (RNG.normal(size=(20, 2)), "regression", 2)])
    def test_targets(self, load, y, task, outputs):
        data = load(x=X, y=y)
        assert (data.task, data.num_outputs) == (task, outputs)

    def test_features(self, load):
        data = load(dict(features=(2, 1)), x=X, y=Y)
        assert data.feature_names == ("x2", "x1")
        assert set(data.test_inputs[:, 0]) <= set(X[:, 2].astype(np.float32))


BAD = [
    (dict(x=X), "has no array 'y'; it has x"), (dict(x=X, y=Y[:-1]), "x has 20 samples, y has 19"),
    (dict(x=X[:, 0], y=Y), "x must hold numbers"), (dict(x=X.astype(str), y=Y), "x must hold numbers"),
    (dict(x=X[:, :0], y=Y), "x must hold numbers"), (dict(x=X * 1j, y=Y), "x must hold numbers"),
    (dict(x=X, y=np.zeros((20, 2, 2))), "y must be [samples] numbers or texts"),
    (dict(x=np.where(X == VALUE, np.nan, X), y=Y), "x[3, 1] is not a finite number in float32's range"),
    (dict(x=X * 1e40, y=Y), "x[0, 0] is not a finite number"),
    (dict(x=X, y=[*Y[:-1], np.inf]), "y[19] is not a finite"),
    (dict(x=X, y=[*Y[:-1], -2]), "y[19] holds the label -2, which is negative"),
    (dict(x=X, y=[*Y[:-1], 1e300]), "y[19] is not a finite number in float32's range"),
    (dict(x=np.array([None] * 20), y=Y), "is not a whole .npz file of plain arrays"),
]


class TestBadInput:
    @pytest.mark.parametrize(("arrays", "problem"), BAD, ids=[problem for _, problem in BAD])
    def test_names_the_array(self, load, tmp_path, arrays, problem):
        task = {"task": "regression"} if "float32" in problem and "y[" in problem else {}
        with pytest.raises(UserError, match=rf"^--data_path: {tmp_path}/data\.npz: {re.escape(problem)}[^\n]*$"):
            load(task, **arrays)

    def test_features_of_images(self, load):
        with pytest.raises(UserError, match=r"^--features: x of .*data\.npz is not a table, its shape is \[20, 4, 2\]"):
            load(dict(features=(0,)), x=np.ones((20, 4, 2)), y=Y)

    def test_classes_of_several_outputs(self, load):
        with pytest.raises(UserError, match=r"^--task: binary needs one label a sample, got 2 numbers; use regres"):
            load(dict(task="binary"), x=X, y=np.ones((20, 2)))

    @pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half", b"\x93NUMPY\x01\x00 half"])
    def test_no_npz(self, tmp_path, content):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(UserError, match=rf"^--data_path: {tmp_path}/a\.npz: is not a whole \.npz file [^\n]*$"):
            npz(Experiment(dataset="npz", data_path=f"{tmp_path}/a.npz"))

    def test_a_plain_array_file(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        with pytest.raises(UserError, match=rf"^--data_path: {tmp_path}/a\.npy: is not a whole \.npz file [^\n]*$"):
            npz(Experiment(dataset="npz", data_path=f"{tmp_path}/a.npy"))

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(UserError, match=rf"^--data_path: cannot read {tmp_path}/a\.npz: No such file"):
            npz(Experiment(dataset="npz", data_path=f"{tmp_path}/a.npz"))
