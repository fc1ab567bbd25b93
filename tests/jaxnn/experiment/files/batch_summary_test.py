"""Tests of jaxnn/experiment/files/batch_summary.py."""

import hashlib

import numpy as np

from jaxnn.experiment.files.batch_summary import batch_summary, differences, summary

ROWS = np.array([[1.0, -4.0], [3.0, 2.0]], np.float32)


class TestSummary:
    def test_of_a_table(self):
        found = summary(ROWS)
        assert found["digest"].tobytes() == hashlib.sha256(ROWS.tobytes()).digest()
        assert found["mean"].tolist() == [2.0, -1.0]
        assert found["largest"].tolist() == [3.0, 4.0]

    def test_columns_are_the_last_axis(self):
        assert summary(np.zeros((5, 4, 3, 2), np.float32))["mean"].shape == (2,)
        assert summary(np.arange(5))["largest"].tolist() == [4.0]

    def test_the_width_of_whole_numbers_does_not_matter(self):
        tokens = np.array([[1, 2], [3, 4]])
        digests = {
            summary(tokens.astype(dtype))["digest"].tobytes()
            for dtype in (np.uint8, np.int32, np.int64)
        }
        assert len(digests) == 1

    def test_nor_does_that_of_numbers_which_float32_holds(self):
        wide = summary(ROWS.astype(np.float64))["digest"]
        assert wide.tolist() == summary(ROWS)["digest"].tolist()

    def test_one_bit_is_seen(self):
        other = np.nextafter(ROWS, np.float32(9))
        assert summary(other)["digest"].tolist() != summary(ROWS)["digest"].tolist()

    def test_names_are_those_of_a_trace(self):
        assert batch_summary(ROWS, np.arange(2)).keys() == {
            f"batch/{kind}/{name}"
            for kind in ("inputs", "targets")
            for name in ("digest", "mean", "largest")
        }


class TestDifferences:
    def test_are_relative_to_the_size_of_the_column(self):
        other = ROWS * np.array([1, 2], np.float32)
        found = sorted(differences(summary(other), summary(ROWS)))
        assert found == [(0.25, 1, "mean"), (1.0, 1, "largest")]

    def test_none_where_only_the_order_differs(self):
        assert not list(differences(summary(ROWS[::-1]), summary(ROWS)))
