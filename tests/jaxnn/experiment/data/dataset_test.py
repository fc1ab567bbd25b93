"""Tests of jaxnn/experiment/data/dataset.py."""

import numpy as np
import pytest

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.preprocessing import HostScaling, Scaling
from jaxnn.experiment.data.splits import SplitIndices

ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)
ANSWERS = np.arange(6, dtype=np.float32)[:, None]


def dataset(inputs, targets, task, names=(), **more):
    return Dataset(inputs, targets, inputs[:1], targets[:1], task, names, **more)


class TestSignature:
    @pytest.mark.parametrize(
        ("shape", "dtype", "task", "names", "targets", "signature", "kind"),
        [
            (
                (4, 3),
                np.float32,
                "regression",
                (),
                (4, 2),
                ((3,), 2, 0, False),
                "table",
            ),
            (
                (4, 3),
                np.float32,
                "binary",
                ("a", "b"),
                (4, 1),
                ((3,), 1, 0, False),
                "table",
            ),
            (
                (4, 5, 1),
                np.float32,
                "regression",
                (),
                (4, 1),
                ((5, 1), 1, 0, False),
                "sequence",
            ),
            (
                (4, 8, 8, 3),
                np.uint8,
                "multiclass",
                ("a", "b", "c"),
                (4,),
                ((8, 8, 3), 3, 0, False),
                "image",
            ),
            (
                (4, 7),
                np.int32,
                "language",
                tuple("abcd"),
                (4, 7),
                ((7,), 4, 4, True),
                "tokens",
            ),
        ],
    )
    def test_of_each_kind(self, shape, dtype, task, names, targets, signature, kind):
        data = dataset(
            np.zeros(shape, dtype), np.zeros(targets, np.float32), task, names
        )
        assert (tuple(data.signature), data.kind) == (signature, kind)


class TestOfSplits:
    def test_rows_of_each_split(self):
        data = Dataset.of_splits(
            SplitIndices(np.array([5, 0]), np.array([2]), np.array([1, 3])),
            ROWS,
            ANSWERS,
            "regression",
        )
        np.testing.assert_array_equal(data.train_targets, [[5], [0]])
        np.testing.assert_array_equal(data.validation_inputs, [[4, 5]])
        np.testing.assert_array_equal(data.test_inputs, [[2, 3], [6, 7]])

    def test_no_validation_and_a_test_split_of_its_own(self):
        none = np.arange(0)
        test = (ROWS[:1], ANSWERS[:1])
        data = Dataset.of_splits(
            SplitIndices(np.arange(6), none, none),
            ROWS,
            ANSWERS,
            "regression",
            test=test,
        )
        assert data.validation_inputs is data.validation_targets is None
        assert data.test_inputs.shape == (1, 2)


class TestMaps:
    def test_every_split_there_is(self):
        data = dataset(
            ROWS,
            ANSWERS,
            "regression",
            validation_inputs=ROWS[:2],
            validation_targets=ANSWERS[:2],
        )
        doubled = data.map_inputs(lambda inputs: 2 * inputs).map_targets(
            lambda targets: -targets
        )
        for split in ("train", "validation", "test"):
            np.testing.assert_array_equal(
                getattr(doubled, f"{split}_inputs"),
                2 * getattr(data, f"{split}_inputs"),
            )
            np.testing.assert_array_equal(
                getattr(doubled, f"{split}_targets"), -getattr(data, f"{split}_targets")
            )
        assert (
            dataset(ROWS, ANSWERS, "").map_inputs(np.negative).validation_inputs is None
        )


class TestScaledOnHost:
    @pytest.mark.parametrize(
        ("scaling", "on_host"),
        [
            (None, False),
            (Scaling(np.float32(0), np.float32(1)), False),
            (HostScaling(np.zeros(2), np.ones(2)), True),
        ],
    )
    def test_by_kind_of_scaling(self, scaling, on_host):
        assert (
            dataset(ROWS, ANSWERS, "regression", scaling=scaling).scaled_on_host
            is on_host
        )
