"""Tests of jaxnn/experiment/datasets.py."""

import dataclasses

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from jaxnn.experiment import datasets
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import Dataset

LINEAR = Experiment(num_samples=100)
CANCER = Experiment(dataset="breast_cancer", loss="binary_cross_entropy")
DIGITS = Experiment(dataset="digits", loss="cross_entropy")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def assert_same(data, other):
    for one, two in zip(dataclasses.astuple(data), dataclasses.astuple(other)):
        np.testing.assert_array_equal(one, two, strict=isinstance(one, np.ndarray))


def no_source(*_, **__):
    raise AssertionError("loaded from scikit-learn, not from the cache")


class TestLoad:
    @pytest.mark.parametrize(("experiment", "fitting"), [
        (LINEAR, "mse"), (CANCER, "binary_cross_entropy"), (DIGITS, "cross_entropy")])
    @pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", "cross_entropy"])
    def test_loss_must_fit(self, experiment, fitting, loss):
        if loss == fitting:
            datasets.load(experiment)
        else:
            with pytest.raises(UserError, match=f"^--loss: {loss} .*--dataset={experiment.dataset} .*use {fitting}$"):
                datasets.load(experiment.replace(loss=loss))

    def test_batch_must_not_exceed_the_data(self):
        datasets.load(LINEAR.replace(batch_size=100))
        with pytest.raises(UserError, match=r"^--batch_size: 101 is larger than the 100 training samples"):
            datasets.load(LINEAR.replace(batch_size=101))

    def test_preprocesses(self):
        raw = datasets.load(CANCER)
        assert_same(datasets.load(CANCER.replace(preprocess="standardize")), datasets.standardize(raw))


class TestLinear:
    @pytest.mark.parametrize(("samples", "fraction", "tests"), [(10_000, 0.2, 2_000), (1, 0.2, 1), (10, 0.5, 5)])
    def test_sizes(self, samples, fraction, tests):
        data = datasets.linear(Experiment(num_samples=samples, test_fraction=fraction))
        assert data.train_inputs.shape == data.train_targets.shape == (samples, 1)
        assert data.test_inputs.shape == data.test_targets.shape == (tests, 1)
        assert (data.task, data.num_outputs, data.class_names) == ("regression", 1, ())

    def test_is_exactly_2x_plus_1(self):
        data = datasets.linear(Experiment())
        for x, y in ((data.train_inputs, data.train_targets), (data.test_inputs, data.test_targets)):
            assert x.dtype == y.dtype == np.float32
            np.testing.assert_array_equal(y, (2 * x.astype(np.float64) + 1).astype(np.float32))

    def test_inputs_are_standard_normal(self):
        x = datasets.linear(Experiment(num_samples=100_000)).train_inputs.astype(np.float64)
        assert abs(x.mean()) < 5 / 100_000**0.5  # five standard errors
        assert abs(x.var() - 1) < 5 * (2 / 100_000) ** 0.5

    def test_seed_decides(self):
        assert_same(datasets.linear(LINEAR), datasets.linear(LINEAR))
        other = datasets.linear(LINEAR.replace(split_seed=1))
        assert (datasets.linear(LINEAR).train_inputs != other.train_inputs).all()


@pytest.mark.parametrize("seed", [42, 7])
class TestBreastCancer:
    def test_split_is_scikit_learns(self, seed):
        bunch = sklearn.datasets.load_breast_cancer()
        parts = train_test_split(bunch.data.astype(np.float32), bunch.target, test_size=0.2, random_state=seed,
                                 stratify=bunch.target)
        data = datasets.breast_cancer(CANCER.replace(split_seed=seed))
        np.testing.assert_array_equal(data.train_inputs, parts[0], strict=True)
        np.testing.assert_array_equal(data.test_inputs, parts[1], strict=True)
        np.testing.assert_array_equal(data.train_targets, parts[2][:, None].astype(np.float32), strict=True)
        np.testing.assert_array_equal(data.test_targets, parts[3][:, None].astype(np.float32), strict=True)
        assert (data.task, data.num_outputs, data.class_names) == ("binary", 1, ("malignant", "benign"))


class TestDigits:
    def test_split_is_scikit_learns(self):
        bunch = sklearn.datasets.load_digits()
        parts = train_test_split(bunch.data.astype(np.float32), bunch.target, test_size=0.2, random_state=42,
                                 stratify=bunch.target)
        data = datasets.digits(DIGITS)
        np.testing.assert_array_equal(data.train_inputs, parts[0], strict=True)
        np.testing.assert_array_equal(data.test_inputs, parts[1], strict=True)
        np.testing.assert_array_equal(data.train_targets, parts[2].astype(np.int32), strict=True)
        np.testing.assert_array_equal(data.test_targets, parts[3].astype(np.int32), strict=True)
        assert (data.task, data.num_outputs, data.class_names) == ("multiclass", 10, tuple("0123456789"))

    def test_a_split_that_cannot_be_names_the_flag(self):
        with pytest.raises(UserError, match=r"^--test_fraction: cannot split --dataset=digits: "):
            datasets.digits(DIGITS.replace(test_fraction=0.001))


class TestStandardize:
    @pytest.mark.parametrize("experiment", [CANCER, DIGITS])
    def test_is_scikit_learns_scaler_to_one_ulp(self, experiment):
        raw = datasets.load(experiment)
        scaler = StandardScaler().fit(raw.train_inputs.astype(np.float64))
        scaled = datasets.standardize(raw)
        for ours, inputs in ((scaled.train_inputs, raw.train_inputs), (scaled.test_inputs, raw.test_inputs)):
            theirs = scaler.transform(inputs.astype(np.float64)).astype(np.float32)
            np.testing.assert_array_max_ulp(ours, theirs, maxulp=1)
        np.testing.assert_array_equal(scaled.train_targets, raw.train_targets)

    def test_uses_training_statistics_only(self):
        train, test = np.array([[0], [4]], np.float32), np.array([[2], [100]], np.float32)
        scaled = datasets.standardize(Dataset(train, train, test, test, "regression"))
        np.testing.assert_array_equal(scaled.train_inputs, [[-1], [1]])
        np.testing.assert_array_equal(scaled.test_inputs, [[0], [49]])

    def test_a_feature_constant_in_training_is_only_shifted_in_testing(self):
        train, test = np.full((3, 1), 5, np.float32), np.array([[7]], np.float32)
        np.testing.assert_array_equal(datasets.standardize(Dataset(train, train, test, test, "")).test_inputs, [[2]])

    @given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 2000))
    @settings(deadline=None, max_examples=100, derandomize=True)
    def test_a_constant_feature_becomes_zero(self, value, samples):
        inputs = np.full((samples, 1), value, np.float32)
        scaled = datasets.standardize(Dataset(inputs, inputs, inputs, inputs, "regression"))
        np.testing.assert_array_equal(scaled.train_inputs, np.zeros((samples, 1), np.float32), strict=True)


class TestCacheFolder:
    def test_environment_decides(self, cache, monkeypatch):
        assert datasets.cache_folder() == cache
        monkeypatch.delenv("JAXNN_CACHE")
        monkeypatch.setenv("HOME", "/somewhere")
        assert str(datasets.cache_folder()) == "/somewhere/.cache/jaxnn"


class TestCache:
    def test_gives_the_same_arrays_without_the_source(self, monkeypatch):
        first = datasets.breast_cancer(CANCER)
        monkeypatch.setattr(sklearn.datasets, "load_breast_cancer", no_source)
        assert_same(datasets.breast_cancer(CANCER), first)

    @pytest.mark.parametrize("change", [dict(split_seed=7), dict(test_fraction=0.3)])
    def test_does_not_mix_up_splits(self, change):
        datasets.breast_cancer(CANCER)
        cached = datasets.breast_cancer(CANCER.replace(**change))
        bunch = sklearn.datasets.load_breast_cancer()
        settings = {"test_fraction": 0.2, "split_seed": 42} | change
        parts = train_test_split(bunch.data.astype(np.float32), test_size=settings["test_fraction"],
                                 random_state=settings["split_seed"], stratify=bunch.target)
        np.testing.assert_array_equal(cached.train_inputs, parts[0])

    @pytest.mark.parametrize("keep", [0, 1, 4, 100, 0.5, 0.999, -1])
    def test_a_truncated_file_is_ignored_and_rewritten(self, cache, monkeypatch, keep):
        first = datasets.breast_cancer(CANCER)
        (path,) = (cache / "datasets").iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
        assert_same(datasets.breast_cancer(CANCER), first)
        monkeypatch.setattr(sklearn.datasets, "load_breast_cancer", no_source)
        assert_same(datasets.breast_cancer(CANCER), first)

    def test_a_flipped_bit_is_noticed(self, cache):
        first = datasets.breast_cancer(CANCER)
        (path,) = (cache / "datasets").iterdir()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert_same(datasets.breast_cancer(CANCER), first)

    def test_leaves_no_temporary_file(self, cache):
        datasets.breast_cancer(CANCER)
        (path,) = (cache / "datasets").iterdir()
        assert path.name.startswith("load_breast_cancer-")

    def test_does_without_where_it_cannot_write(self, cache, capsys):
        cache.write_text("a file, not a folder")
        assert len(datasets.breast_cancer(CANCER).train_inputs) == 455
        assert capsys.readouterr().out.startswith(f"note: no data cache in {cache}")
