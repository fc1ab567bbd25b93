"""Tests of parity/judging/batch.py."""

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.preprocessing import Scaling
from jaxnn.experiment.files.batch_summary import batch_summary
from parity.judging.batch import explain_batch, judge_batch
from parity.judging.explanation import sentence
from parity.judging.measure import UNEQUAL

IDS = np.array([2, 0], np.int32)
INPUTS = np.array([[1.0, 1.3], [5.0, 5.0], [-2.0, 0.5]], np.float32)
TARGETS = np.array([0, 1, 1], np.int32)
NAMES = ("mean radius", "mean texture")


def dataset(inputs: np.ndarray = INPUTS, targets: np.ndarray = TARGETS, **more):
    return Dataset(inputs, targets, inputs, targets, "multiclass", **more)


def step(inputs: np.ndarray = INPUTS[IDS], targets: np.ndarray = TARGETS[IDS]):
    return {"batch/ids": IDS, **batch_summary(inputs, targets)}


def judged(recorded, data):
    """quantity -> (z, gap)."""
    return {m.quantity: (m.z, m.gap) for m in judge_batch(1, recorded, data)}


def gap(recorded, data=None):
    """How the inputs differ; the targets do not."""
    found = judged(recorded, data or dataset(feature_names=NAMES))
    assert found["targets"] == (0.0, "")
    assert found["inputs"][0] == UNEQUAL
    return found["inputs"][1]


class TestJudgeBatch:
    def test_what_is_the_same(self):
        assert judged(step(), dataset()) == {"inputs": (0.0, ""), "targets": (0.0, "")}

    def test_a_trace_without_digests_is_read_as_before(self):
        assert judge_batch(0, {"batch/ids": IDS}, dataset()) == []

    def test_says_which_column_differs_most_and_by_how_much(self):
        other = INPUTS[IDS] * np.array([1.01, 1.2 / 1.3], np.float32)
        assert gap(step(other)) == (
            "the inputs differ: column 1 (mean texture): largest 1.2 against 1.3; and "
            "1 more of 2 columns"
        )

    def test_shows_the_digits_that_tell_figures_apart(self):
        other = INPUTS[IDS].copy()
        other[1, 1] = np.nextafter(np.float32(1.3), np.float32(2))
        assert gap(step(other)).endswith(
            "largest 1.3000000715255737 against 1.2999999523162842"
        )

    def test_rows_in_another_order(self):
        assert gap(step(INPUTS[IDS][::-1])) == (
            "the inputs differ: other numbers, or in other places, of the same mean "
            "and largest"
        )

    def test_another_number_of_columns(self):
        assert gap(step(INPUTS[IDS][:, :1])).endswith("1 columns, 2 expected")

    def test_other_targets(self):
        found = judged(step(targets=np.array([1, 1])), dataset())
        assert found["inputs"] == (0.0, "")
        assert found["targets"] == (
            UNEQUAL,
            "the targets differ: column 0: mean 1 against 0.5",
        )

    def test_tokens(self):
        data = dataset(np.array([[1, 2], [3, 4], [5, 6]], np.int32))
        same = step(data.train_inputs[IDS].astype(np.int64))
        assert judged(same, data)["inputs"] == (0.0, "")
        other = step(np.array([[5, 7], [1, 2]]))
        assert gap(other, data) == ("the inputs differ: column 1: largest 7 against 6")

    def test_images_of_bytes_are_compared_scaled(self):
        images = np.arange(24, dtype=np.uint8).reshape(3, 2, 2, 2)
        scaling = Scaling(np.array([1, 2], np.float32), np.array([0.5, 3], np.float32))
        data = dataset(images, scaling=scaling)
        assert judged(step(scaling.apply(images[IDS])), data)["inputs"] == (0.0, "")
        other = scaling._replace(scale=np.array([0.5, 3.3], np.float32))
        assert gap(step(other.apply(images[IDS])), data) == (
            "the inputs differ: column 1: largest 69.3 against 63"
        )


def test_what_follows_is_not_blamed():
    (failed, _) = judge_batch(1, step(INPUTS[IDS] * np.float32(2)), dataset())
    said = sentence(explain_batch(failed))
    assert said.startswith("part of it is inputs: what a step makes of other inputs")
