"""Tests of jaxnn/experiment/data/evaluation.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data import evaluation
from jaxnn.experiment.data.batches import PADDING
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.evaluation import EvaluationSplit
from jaxnn.experiment.flags.config import Experiment

fast = settings(deadline=None, max_examples=50, derandomize=True)


def split(name, count, width=1):
    return EvaluationSplit(
        name, np.zeros((count, width), np.float32), np.zeros((count, 1), np.float32)
    )


class TestSplits:
    @pytest.mark.parametrize(
        ("validation", "train", "names"),
        [
            (False, False, ["test"]),
            (True, False, ["test", "validation"]),
            (False, True, ["test", "evaluated_train"]),
            (True, True, ["test", "validation", "evaluated_train"]),
        ],
    )
    def test_test_first_then_what_there_is(self, validation, train, names):
        parts = [np.full((size, 1), size, np.float32) for size in (5, 5, 3, 3)]
        held = [np.full((2, 1), 2, np.float32)] * 2 if validation else [None, None]
        data = Dataset(
            *parts, "regression", validation_inputs=held[0], validation_targets=held[1]
        )
        found = evaluation.splits(Experiment(evaluate_train=train), data)
        assert [part.name for part in found] == names
        assert [len(part.inputs) for part in found] == [
            {"test": 3, "validation": 2}.get(name, 5) for name in names
        ]


class TestPlan:
    @given(
        st.lists(st.integers(1, 300), min_size=1, max_size=3),
        st.integers(1, 64),
        st.integers(1, 8),
        st.sampled_from([1, 700, 10_000]),
    )
    @fast
    def test_covers_every_split_in_order_and_mixes_none(
        self, counts, batch_size, world_size, width
    ):
        splits = [
            split(str(number), count, width) for number, count in enumerate(counts)
        ]
        ids, owners = evaluation.plan(
            Experiment(batch_size=batch_size * world_size), splits, world_size
        )
        assert ids.shape[1] % world_size == 0
        flat = ids.reshape(-1)
        np.testing.assert_array_equal(flat[flat != PADDING], np.arange(sum(counts)))
        owner_of = np.repeat(np.arange(len(counts)), counts)
        for row, owner in zip(ids, owners):
            assert (owner_of[row[row != PADDING]] == owner).all()
        assert ids.shape[1] // world_size <= max(
            batch_size, evaluation.MOST_NUMBERS // width
        )

    def test_small_data_make_one_batch_without_padding(self):
        assert evaluation.plan(Experiment(), [split("test", 114, 30)])[0].shape == (
            1,
            114,
        )


class TestMeans:
    def test_sums_by_split_over_its_samples(self):
        sums = np.array([[1, 2], [3, 4], [10, 20]], np.float32)
        means = evaluation.means(
            [split("test", 4), split("validation", 5)], np.array([0, 0, 1]), sums
        )
        assert {name: pair.tolist() for name, pair in means.items()} == {
            "test": [1, 1.5],
            "validation": [2, 4],
        }
