"""Tests of jaxnn/experiment/data/sources/npz_file.py."""

import dataclasses
import itertools
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch

from jaxnn import epochs, train
from jaxnn.experiment.data import evaluation, lazy_rows, samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.lazy_rows import Rows
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.sources import array_files
from jaxnn.experiment.data.sources.npz_file import npz
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref import gathering

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = np.tile([0, 1], 10)
VALUE = X[3, 1]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=["read", "mapped"])
def load(tmp_path, monkeypatch, request):
    """Writes arrays and loads them, read as small files are or mapped as large ones."""
    monkeypatch.setattr(
        array_files, "MAPPED_FROM", 0 if request.param == "mapped" else 2**28
    )

    def from_arrays(change=None, **arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        data = npz(
            Experiment(
                dataset="npz", data_path=str(tmp_path / "data.npz"), **(change or {})
            )
        )
        assert isinstance(data.train_inputs, Rows) == (request.param == "mapped")
        return held(data)

    return from_arrays


class TestNpz:
    @pytest.mark.parametrize(
        ("dtype", "kept"),
        [
            (np.float64, np.float64),
            (np.float32, np.float32),
            (np.float16, np.float32),
            (np.int64, np.int64),
            (np.int32, np.float64),
            (np.uint64, np.float64),
            (np.uint8, np.float32),
            (bool, np.float32),
        ],
    )
    def test_a_table_is_not_rounded_before_it_is_scaled(self, load, dtype, kept):
        x = (RNG.random((20, 3)) * 100).astype(dtype)
        data = load(x=x, y=np.arange(20) + 0.5)
        assert (data.task, data.feature_names) == ("regression", ("x0", "x1", "x2"))
        order = (data.train_targets[:, 0] - 0.5).astype(int)
        np.testing.assert_array_equal(
            data.train_inputs, x[order].astype(kept), strict=True
        )

    @pytest.mark.parametrize(
        ("x", "shape", "dtype"),
        [
            (RNG.normal(size=(20, 5, 2)), (5, 2), np.float64),
            (RNG.normal(size=(20, 4, 4, 3)), (4, 4, 3), np.float64),
            (RNG.integers(0, 256, (20, 4, 4, 3), np.uint8), (4, 4, 3), np.uint8),
            (RNG.integers(0, 256, (20, 4, 4), np.uint8), (4, 4, 1), np.uint8),
        ],
    )
    def test_sequences_and_images(self, load, x, shape, dtype):
        data = load(x=x, y=Y)
        assert (data.train_inputs.shape, data.train_inputs.dtype) == (
            (16, *shape),
            dtype,
        )

    @pytest.mark.parametrize(
        ("y", "task", "outputs"),
        [
            (Y, "binary", 1),
            (Y[:, None], "binary", 1),
            (np.array(["no", "yes"])[Y], "binary", 1),
            (np.tile(range(4), 5), "multiclass", 4),
            (RNG.normal(size=20), "regression", 1),
            (RNG.normal(size=(20, 2)), "regression", 2),
        ],
    )
    def test_targets(self, load, y, task, outputs):
        data = load(x=X, y=y)
        assert (data.task, data.num_outputs) == (task, outputs)

    def test_features(self, load):
        data = load(dict(features=(2, 1)), x=X, y=Y)
        assert data.feature_names == ("x2", "x1")
        assert set(data.test_inputs[:, 0]) <= set(X[:, 2])


def held(data: Dataset) -> Dataset:
    """The data set with all inputs read."""
    inputs = {
        name: getattr(data, name)
        for name in ("train_inputs", "validation_inputs", "test_inputs")
    }
    return dataclasses.replace(
        data,
        **{
            name: np.asarray(array)
            for name, array in inputs.items()
            if array is not None
        },
    )


IMAGES = RNG.integers(0, 256, (30, 4, 5), np.uint8)
TABLE = RNG.normal(3, 100, (30, 4))
SEQUENCES = RNG.normal(3, 100, (30, 5, 2)).astype(np.float32)


def shards(folder: pathlib.Path, x: np.ndarray, y: np.ndarray, kind: str) -> str:
    """Writes x and y to three shards of different lengths; returns their data path."""
    for number, (first, last) in enumerate(itertools.pairwise((0, 4, 11, len(x)))):
        if kind == "npz":
            np.savez(folder / f"part_{number}.npz", x=x[first:last], y=y[first:last])
        else:
            np.save(folder / f"x_{number}.npy", x[first:last])
            np.save(folder / f"y_{number}.npy", y[first:last])
    return f"{folder}/part_*.npz" if kind == "npz" else str(folder)


class TestFilesOfOneDataSet:
    """Shards, read or mapped, hold the numbers of one array in memory, to the bit."""

    @pytest.mark.parametrize("kind", ["npz", "npy"])
    @pytest.mark.parametrize("mapped", [False, True])
    @pytest.mark.parametrize(
        ("x", "preprocess"),
        [
            (TABLE, "none"),
            (TABLE, "standardize"),
            (TABLE, "min_max"),
            (SEQUENCES, "standardize"),
            (IMAGES, "standardize"),
            (IMAGES, "none"),
            (IMAGES.reshape(30, 20), "min_max"),
        ],
    )
    def test_equal_to_one_array(
        self, tmp_path, monkeypatch, x, preprocess, mapped, kind
    ):
        # Of 400 or more in the training split: several parts.
        monkeypatch.setattr(lazy_rows, "NUMBERS_AT_ONCE", 60)
        y = np.arange(30) % 2
        np.savez(tmp_path / "whole.npz", x=x, y=y)
        flags = Experiment(
            dataset="npz",
            model="mlp",
            loss="binary_cross_entropy",
            batch_size=4,
            preprocess=preprocess,
            validation_fraction=0.2,
            data_path=f"{tmp_path}/whole.npz",
        )
        whole = load_dataset(flags)
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0 if mapped else 2**28)
        ours = load_dataset(flags.replace(data_path=shards(tmp_path, x, y, kind)))
        assert isinstance(ours.train_inputs, Rows) == mapped
        assert (ours.signature, ours.kind) == (whole.signature, whole.kind)
        for field in dataclasses.fields(Dataset):
            ours_field = getattr(ours, field.name)
            expected = getattr(whole, field.name)
            if field.name.endswith(("_inputs", "_targets")):
                np.testing.assert_array_equal(
                    np.asarray(ours_field), expected, strict=True
                )
            elif field.name == "scaling":
                for one, other in zip(ours_field or (), expected or (), strict=True):
                    np.testing.assert_array_equal(one, other, strict=True)
        np.testing.assert_array_equal(
            ours.train_inputs[np.array([5, 2])], whole.train_inputs[[5, 2]], strict=True
        )

    def test_both_stacks_put_them_on_the_device(self, tmp_path, monkeypatch):
        flags = Experiment(
            dataset="npz",
            model="cnn",
            loss="binary_cross_entropy",
            batch_size=4,
            evaluate_train=True,
            data_path=shards(tmp_path, IMAGES, np.arange(30) % 2, "npy"),
        )
        held = load_dataset(flags)
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0)
        mapped = load_dataset(flags)
        for count in (1, 2):
            resident = [
                epochs.make_resident(
                    epochs.make_work(
                        flags,
                        data,
                        evaluation.splits(flags, data)[:count],
                        np.zeros(1, np.float32),
                        jax.local_devices()[:1],
                    )[0]
                )
                for data in (held, mapped)
            ]
            jax.tree.map(np.testing.assert_array_equal, *resident)
        ours = gathering.put(samples.training(mapped), torch.device("cpu"))
        np.testing.assert_array_equal(
            ours.inputs.numpy(), held.train_inputs, strict=True
        )

    def test_train_the_same_parameters(self, tmp_path, monkeypatch):
        flags = Experiment(
            dataset="npz",
            loss="binary_cross_entropy",
            batch_size=4,
            epochs=2,
            preprocess="standardize",
            precision="fp32",
            data_path=shards(tmp_path, TABLE, np.arange(30) % 2, "npz"),
        )
        for limit in (2**28, 0):
            monkeypatch.setattr(array_files, "MAPPED_FROM", limit)
            train.main(flags.replace(workdir=f"{tmp_path}/run_{limit}"))
        held, mapped = (
            (tmp_path / f"run_{limit}/params.safetensors").read_bytes()
            for limit in (2**28, 0)
        )
        assert held == mapped


# Loads a small data set, so that everything is imported, then a large one. Prints the
# bytes of the large one, and by how many bytes the memory of the process grew at most.
# clear_refs resets VmHWM, the peak of the resident memory.
MEASURE = """
import pathlib, re, sys
import numpy as np
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.flags.config import Experiment

def load(folder):
    return load_dataset(Experiment(dataset="npz", data_path=folder, batch_size=8))

def kilobytes(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\\s+(\\d+) kB", status)[1])

load(sys.argv[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
data = load(sys.argv[2])
assert data.train_inputs[np.arange(8)].shape == (8, data.train_inputs.shape[1])
print(data.train_inputs.shape[1] * 4 * (len(data.train_inputs) + len(data.test_inputs)),
      1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs files with holes, and /proc")
class TestMemory:
    def test_larger_than_memory(self, tmp_path):
        """4 GiB of zeros in files that take no disk."""
        for name, count, features, files in (
            ("small", 40, 2, 1),
            ("large", 2**15, 2**14, 2),
        ):
            (tmp_path / name).mkdir()
            for number in range(files):
                np.lib.format.open_memmap(
                    tmp_path / name / f"x_{number}.npy",
                    "w+",
                    np.float32,
                    (count, features),
                )
                np.save(tmp_path / name / f"y_{number}.npy", np.arange(count) / 2)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "large"],
            capture_output=True,
            text=True,
            check=True,
        )
        size, more = map(int, done.stdout.split())
        assert size == 2**32
        # 2^16 samples: a dozen arrays of 8 bytes a sample (targets, indices, shuffles)
        # are 6 MiB, eight rows 0.5 MiB.
        assert more < 2**24


BAD = [
    (dict(x=X), "has no array 'y'; it has x"),
    (dict(x=X, y=Y[:-1]), "x has 20 samples, y has 19"),
    (dict(x=X[:, 0], y=Y), "x must hold numbers"),
    (dict(x=X.astype(str), y=Y), "x must hold numbers"),
    (dict(x=X[:, :0], y=Y), "x must hold numbers"),
    (dict(x=X * 1j, y=Y), "x must hold numbers"),
    (dict(x=X, y=np.zeros((20, 2, 2))), "y must be [samples] numbers or texts"),
    (
        dict(x=np.where(X == VALUE, np.nan, X), y=Y),
        "x[3, 1] is not a finite number in float32's range",
    ),
    (dict(x=np.where(X[0, 0] == X, 1e40, X), y=Y), "x[0, 0] is not a finite number"),
    (dict(x=X, y=[*Y[:-1], np.inf]), "y[19] is not a finite"),
    (dict(x=X, y=[*Y[:-1], -2]), "y[19] holds the label -2, which is negative"),
    (dict(x=X, y=[*Y[:-1], 1e300]), "y[19] is not a finite number in float32's range"),
    (dict(x=np.array([None] * 20), y=Y), "is not a whole .npz file of plain arrays"),
]


def refused(experiment: Experiment, problem: str) -> None:
    with pytest.raises(UserError) as error:
        held(load_dataset(experiment))
    assert str(error.value) == f"--data_path: {problem}"


class TestFilesThatDoNotFit:
    @pytest.mark.parametrize(
        ("x", "y", "problem"),
        [
            (
                TABLE[:, :3],
                Y[:10],
                "b.npz: x holds float64[3] a sample, and float64[4] in {}/a.npz",
            ),
            (
                SEQUENCES,
                Y[:10],
                "b.npz: x holds float32[5, 2] a sample, and float64[4] in {}/a.npz",
            ),
            (
                TABLE.astype(np.float32),
                Y[:10],
                "b.npz: x holds float32[4] a sample, and float64[4] in {}/a.npz",
            ),
            (
                TABLE,
                np.array(["a", "b"] * 5),
                "b.npz: y holds text[] a sample, and int64[] in {}/a.npz",
            ),
            (TABLE[:9], Y[:10], "b.npz: x has 9 samples, y has 10"),
            (
                np.where(np.arange(120).reshape(30, 4) == 27, np.nan, TABLE),
                Y[:10],
                "b.npz: x[6, 3] is not a finite number in float32's range",
            ),
        ],
    )
    @pytest.mark.parametrize("mapped", [False, True])
    def test_names_the_file_and_its_row(
        self, tmp_path, monkeypatch, x, y, problem, mapped
    ):
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0 if mapped else 2**28)
        np.savez(tmp_path / "a.npz", x=TABLE[:10], y=Y[:10])
        np.savez(tmp_path / "b.npz", x=x[:10], y=y)
        refused(
            Experiment(
                dataset="npz",
                data_path=f"{tmp_path}/*.npz",
                loss="binary_cross_entropy",
                batch_size=4,
            ),
            f"{tmp_path}/{problem.format(tmp_path)}",
        )

    def test_the_row_of_a_target(self, tmp_path):
        for name, y in (("a", np.arange(10.0)), ("b", np.array([0, 1, 2, np.inf]))):
            np.savez(tmp_path / f"{name}.npz", x=TABLE[: len(y)], y=y)
        refused(
            Experiment(dataset="npz", data_path=f"{tmp_path}/*.npz"),
            f"{tmp_path}/b.npz: y[3] is not a finite number",
        )

    def test_scaled_beyond_float32(self, tmp_path, monkeypatch):
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0)
        x = np.full((30, 1), 1e-38, np.float32)
        x[::2] = 0
        flags = Experiment(
            dataset="npz",
            data_path=f"{tmp_path}/a.npz",
            preprocess="standardize",
            batch_size=4,
        )
        np.savez(tmp_path / "a.npz", x=x, y=np.arange(30.0))
        test = np.rint(np.asarray(load_dataset(flags).test_targets[:1, 0])).astype(int)
        x[test] = 3e38
        np.savez(tmp_path / "a.npz", x=x, y=np.arange(30.0))
        with pytest.raises(
            UserError,
            match=r"^--preprocess: standardize takes --dataset=npz beyond float32's "
            "range",
        ):
            held(load_dataset(flags))


class TestBadInput:
    @pytest.mark.parametrize(
        ("arrays", "problem"), BAD, ids=[problem for _, problem in BAD]
    )
    def test_names_the_array(self, load, tmp_path, arrays, problem):
        task = (
            {"task": "regression"} if "float32" in problem and "y[" in problem else {}
        )
        with pytest.raises(
            UserError,
            match=rf"^--data_path: {tmp_path}/data\.npz: {re.escape(problem)}[^\n]*$",
        ):
            load(task, **arrays)

    def test_features_of_images(self, load):
        with pytest.raises(
            UserError,
            match=r"^--features: x of .*data\.npz is not a table, its shape is \[20, "
            r"4, 2\]",
        ):
            load(dict(features=(0,)), x=np.ones((20, 4, 2)), y=Y)

    def test_classes_of_several_outputs(self, load):
        with pytest.raises(
            UserError,
            match=r"^--task: binary needs one label a sample, got 2 numbers; use "
            r"regres",
        ):
            load(dict(task="binary"), x=X, y=np.ones((20, 2)))

    @pytest.mark.parametrize(
        "content", [b"", b"not a zip", b"PK\x03\x04 half", b"\x93NUMPY\x01\x00 half"]
    )
    def test_no_npz(self, tmp_path, content):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(
            UserError,
            match=rf"^--data_path: {tmp_path}/a\.npz: is not a whole \.npz file "
            r"[^\n]*$",
        ):
            npz(Experiment(dataset="npz", data_path=f"{tmp_path}/a.npz"))

    def test_a_plain_array_file(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        with pytest.raises(
            UserError,
            match=rf"^--data_path: {tmp_path}/a\.npy: is not one of x\.npy and "
            r"y\.npy, or ",
        ):
            npz(Experiment(dataset="npz", data_path=f"{tmp_path}/a.npy"))

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(
            UserError,
            match=rf"^--data_path: cannot read {tmp_path}/a\.npz: No such file",
        ):
            npz(Experiment(dataset="npz", data_path=f"{tmp_path}/a.npz"))
