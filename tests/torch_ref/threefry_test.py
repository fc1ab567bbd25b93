"""Tests of torch_ref/threefry.py: the very bits of jax.random."""

import jax
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torch_ref import threefry

WORD = st.integers(0, 2**31 - 1)
fast = settings(deadline=None, max_examples=40, derandomize=True)


def words(key):
    return tuple(int(word) for word in jax.random.key_data(key))


def unsigned(key):
    return tuple(word % 2**32 for word in key)


class TestKey:
    @given(WORD)
    @example(0)
    @example(2**31 - 1)
    @fast
    def test_is_jaxs(self, seed):
        assert unsigned(threefry.key(seed)) == words(jax.random.key(seed))


class TestFoldIn:
    @given(WORD, st.lists(WORD, min_size=1, max_size=3))
    @example(2**31 - 1, [2**31 - 1, 0])
    @fast
    def test_is_jaxs(self, seed, data):
        ours, theirs = threefry.key(seed), jax.random.key(seed)
        for number in data:
            ours, theirs = (
                threefry.fold_in(ours, number),
                jax.random.fold_in(theirs, number),
            )
            assert unsigned(ours) == words(theirs)


class TestBernoulli:
    @pytest.mark.parametrize(
        "shape", [(), (1,), (0, 3), (32, 64), (3, 5, 7), (2, 3, 4, 5)]
    )
    @given(WORD, st.integers(0, 3), st.floats(0, 1, width=32))
    @example(2**31 - 1, 0, 1.0)
    @example(0, 1, 0.0)
    @example(0, 2, 1e-45)
    @example(0, 3, float(np.nextafter(np.float32(1), np.float32(0))))
    @settings(fast, max_examples=10)
    def test_is_jaxs(self, shape, seed, layer, p):
        ours = threefry.bernoulli(
            threefry.fold_in(threefry.key(seed), layer), np.float32(p), shape
        )
        theirs = jax.random.bernoulli(
            jax.random.fold_in(jax.random.key(seed), layer), np.float32(p), shape
        )
        np.testing.assert_array_equal(ours.numpy(), theirs, strict=True)

    def test_a_draw_equal_to_p_is_false_and_one_step_below_p_is_true(self):
        draws = np.asarray(jax.random.uniform(jax.random.key(0), (64,)))
        for place, p in enumerate(draws):
            for edge, expected in ((p, False), (np.nextafter(p, np.float32(1)), True)):
                assert (
                    bool(threefry.bernoulli(threefry.key(0), edge, (64,))[place])
                    == expected
                )

    @given(first=st.integers(0, 11), rows=st.integers(0, 12))
    @settings(fast, max_examples=10)
    def test_later_rows_are_a_part_of_the_whole(self, first, rows):
        rows = min(rows, 12 - first)
        whole = jax.random.bernoulli(jax.random.key(5), np.float32(0.5), (12, 3, 5))
        part = threefry.bernoulli(threefry.key(5), np.float32(0.5), (rows, 3, 5), first)
        np.testing.assert_array_equal(part.numpy(), whole[first : first + rows])


class TestCounters:
    @given(first=WORD, rows=st.integers(0, 3), columns=st.sampled_from([1, 3, 70_000]))
    @example(first=2**31 - 1, rows=2, columns=70_000)
    @example(first=2**32 // 48 - 1, rows=3, columns=48)  # crosses 2**32
    @settings(fast, max_examples=20)
    def test_are_the_two_words_of_64_bit_indices(self, first, rows, columns):
        expected = np.uint64(first * columns) + np.arange(
            rows * columns, dtype=np.uint64
        )
        high, low = threefry.counters((rows, columns), first)
        words = high.numpy().view(np.uint32), low.numpy().view(np.uint32)
        np.testing.assert_array_equal(words[0], expected >> np.uint64(32))
        np.testing.assert_array_equal(words[1], expected % np.uint64(2**32))


class TestThreefry2x32:
    @pytest.mark.parametrize(
        ("key", "counter", "expected"),
        [
            ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
            (
                (0xFFFFFFFF, 0xFFFFFFFF),
                (0xFFFFFFFF, 0xFFFFFFFF),
                (0x1CB996FC, 0xBB002BE7),
            ),
            (
                (0x13198A2E, 0x03707344),
                (0x243F6A88, 0x85A308D3),
                (0xC4923A9C, 0x483DF7A0),
            ),
        ],
    )
    def test_known_answers(self, key, counter, expected):
        """Random123's kat_vectors, threefry2x32 with 20 rounds."""
        high, low = (
            torch.from_numpy(np.array([word], np.uint32).view(np.int32))
            for word in counter
        )
        assert (
            unsigned(int(word) for word in threefry.threefry_2x32(key, high, low))
            == expected
        )
