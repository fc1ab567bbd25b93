"""Tests of jaxnn/experiment/data/lazy_rows.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data import lazy_rows
from jaxnn.experiment.data.lazy_rows import Rows

FILES = [
    np.arange(first * 6, last * 6, dtype=np.int32).reshape(-1, 2, 3)
    for first, last in ((0, 4), (4, 5), (5, 9))
]
WHOLE = np.concatenate(FILES)


def unread(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    assert len(values) == 0, "read although nobody asked"
    return values


class TestRows:
    @given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
    @settings(deadline=None, max_examples=150, derandomize=True)
    def test_are_what_numpy_indexes(self, lengths, data):
        numbers = np.random.default_rng(0).integers(0, 99, (sum(lengths), 2))
        ours = lazy_rows.concatenate(np.split(numbers, np.cumsum(lengths)[:-1]))
        theirs = numbers
        for _ in range(data.draw(st.integers(0, 2), "picks")):
            indices = np.array(
                data.draw(
                    st.lists(st.integers(0, len(theirs) - 1), min_size=1, max_size=9)
                )
            )
            ours = ours.pick(indices)
            theirs = theirs[indices]
        row = st.integers(-len(theirs), len(theirs) - 1)
        index = data.draw(
            st.one_of(
                st.slices(len(theirs)),
                st.lists(row, max_size=9).map(lambda numbers: np.array(numbers, int)),
                st.lists(st.tuples(row, row), min_size=1, max_size=3).map(np.array),
            )
        )
        np.testing.assert_array_equal(ours[index], theirs[index], strict=True)
        np.testing.assert_array_equal(np.asarray(ours), theirs, strict=True)
        assert (ours.shape, ours.dtype, ours.ndim, len(ours)) == (
            theirs.shape,
            theirs.dtype,
            2,
            len(theirs),
        )

    def test_functions_act_when_rows_are_read(self):
        mapped = (
            lazy_rows.concatenate(FILES)
            .map(lambda x: x[:, 0])
            .map(lambda x: x.astype(np.float32) / 2)
        )
        assert (mapped.shape, mapped.dtype) == ((9, 3), np.float32)
        halves = WHOLE[[4, 0], 0].astype(np.float32) / 2
        np.testing.assert_array_equal(
            mapped.pick(np.array([8, 4, 0]))[1:], halves, strict=True
        )

    def test_the_reader_is_told_the_places(self):
        told = lazy_rows.concatenate(FILES, lambda values, places: places)
        np.testing.assert_array_equal(
            told.pick(np.array([7, 2, 5]))[np.array([[2], [0]])], [[5], [7]]
        )

    def test_pick_and_map_read_nothing(self):
        lazy = (
            lazy_rows.concatenate(FILES, unread)
            .pick(np.array([3, 1]))
            .map(lambda x: x + 1)
        )
        assert lazy.shape == (2, 2, 3)
        with pytest.raises(AssertionError, match="nobody asked"):
            lazy[:1]

    def test_what_is_read_is_a_copy(self):
        ours = lazy_rows.concatenate(FILES)
        ours[:][:] = -1
        np.testing.assert_array_equal(ours[:], WHOLE)

    def test_as_another_dtype(self):
        ours = np.asarray(lazy_rows.concatenate(FILES), np.float64)
        np.testing.assert_array_equal(ours, WHOLE.astype(np.float64), strict=True)
        both = np.concatenate(
            [lazy_rows.concatenate(FILES), lazy_rows.concatenate(FILES[:1])]
        )
        np.testing.assert_array_equal(
            both, np.concatenate([WHOLE, FILES[0]]), strict=True
        )


class TestOfEither:
    @pytest.mark.parametrize(
        "held", [WHOLE, lazy_rows.concatenate(FILES)], ids=["array", "rows"]
    )
    @pytest.mark.parametrize("at_once", [1, 13, 2**22])
    def test_pick_apply_chunks(self, monkeypatch, held, at_once):
        monkeypatch.setattr(lazy_rows, "NUMBERS_AT_ONCE", at_once)
        changed = lazy_rows.apply(
            lambda x: x[..., None] * 2, lazy_rows.pick(held, np.array([6, 0, 3]))
        )
        assert isinstance(changed, Rows) == isinstance(held, Rows)
        parts = [*lazy_rows.chunks(changed)]
        assert [len(part) for part in parts] == {1: [1, 1, 1], 13: [2, 1], 2**22: [3]}[
            at_once
        ]
        np.testing.assert_array_equal(
            np.concatenate(parts), WHOLE[[6, 0, 3], ..., None] * 2, strict=True
        )


class TestPick:
    array = np.arange(12).reshape(6, 2)

    @pytest.mark.parametrize("indices", [[0, 1, 2], [2, 3], [5], []])
    def test_consecutive_rows_are_a_view(self, indices):
        picked = lazy_rows.pick(self.array, np.array(indices, int))
        np.testing.assert_array_equal(picked, self.array[np.array(indices, int)])
        assert np.shares_memory(picked, self.array) == bool(indices)

    @pytest.mark.parametrize("indices", [[1, 0], [0, 2], [3, 3], [-1, 0]])
    def test_other_rows_are_a_copy(self, indices):
        picked = lazy_rows.pick(self.array, np.array(indices))
        np.testing.assert_array_equal(picked, self.array[np.array(indices)])
        assert not np.shares_memory(picked, self.array)
