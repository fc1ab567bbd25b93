"""Tests of jaxnn/experiment/data/rounding.py, and that load.py rounds last."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.rounding import merged
from jaxnn.experiment.flags.config import Experiment

TIMES = 1_700_000_000 + 10 * np.arange(12)


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))

    def load(x, dataset, preprocess):
        path = tmp_path / "data"
        if dataset == "npz":
            with path.open("wb") as file:
                np.savez(file, x=x[:, None], y=np.arange(len(x)) / 2)
        else:
            rows = "".join(f"{value},{row / 2}\n" for row, value in enumerate(x))
            path.write_text("x0,y\n" + rows)
        return load_dataset(
            Experiment(
                dataset=dataset,
                data_path=str(path),
                preprocess=preprocess,
                batch_size=4,
                test_fraction=0.25,
            )
        )

    return load


@pytest.mark.parametrize("dataset", ["csv", "npz"])
class TestLoad:
    @pytest.mark.parametrize("preprocess", ["standardize", "min_max"])
    def test_times_stay_apart_once_scaled(self, load, dataset, preprocess):
        data = load(TIMES, dataset, preprocess)
        assert len(np.unique(data.train_inputs)) == 9
        assert not [note for note in data.notes if "float32" in note]
        order = (data.train_targets[:, 0] * 2).astype(int)
        values = TIMES[order].astype(np.float64)
        scaled = (values - data.scaling.offset) / data.scaling.divisor
        np.testing.assert_array_equal(
            data.train_inputs[:, 0], scaled.astype(np.float32), strict=True
        )

    def test_what_is_lost_is_told(self, load, dataset):
        data = load(TIMES, dataset, "none")
        assert data.train_inputs.dtype == np.float32
        (note,) = [note for note in data.notes if "float32" in note]
        assert note.startswith("note: column 'x0': 9 distinct values become ")
        assert note.endswith("; --preprocess=standardize scales before it rounds")

    def test_ids_beyond_float64_are_told(self, load, dataset):
        data = load(2**53 + np.arange(12), dataset, "standardize")
        assert [note for note in data.notes if note.startswith("note: column 'x0': ")]


class TestMerged:
    @given(arrays(np.int64, st.integers(1, 30), elements=st.integers(-(2**24), 2**24)))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_small_whole_numbers_survive(self, values):
        assert merged(values, values.astype(np.float32)) == ""

    @given(arrays(np.int64, st.integers(1, 30), elements=st.integers(-(2**60), 2**60)))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_counts_what_is_left(self, values):
        rounded = values.astype(np.float32)
        before, after = len(np.unique(values)), len(np.unique(rounded))
        told = merged(values, rounded)
        assert bool(told) == (after < before)
        if told:
            assert told.startswith(
                f"{before} distinct values become {after} in float32, e.g. "
            )

    def test_a_few_of_many_fractions_may_merge(self):
        values = np.append(np.linspace(0.1, 0.9, 99), 0.1 + 1e-12)
        assert merged(values, values.astype(np.float32)) == ""
