"""Tests of jaxnn/experiment/data/alignment.py."""

import numpy as np
import pytest

from jaxnn.experiment.data import alignment


def misaligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    room = np.empty(int(np.prod(shape)) * np.dtype(dtype).itemsize + 128, np.uint8)
    start = -room.ctypes.data % alignment.BYTES + np.dtype(dtype).itemsize
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = room[start : start + size].view(dtype).reshape(shape)
    array[...] = np.arange(array.size).reshape(shape)
    return array


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(5, 3), (0, 3), (), (1,)])
def test_the_copy_is_equal_and_aligned(shape, dtype):
    given = misaligned(shape, dtype)
    copy = alignment.aligned(given)
    np.testing.assert_array_equal(copy, given)
    assert (copy.shape, copy.dtype) == (given.shape, given.dtype)
    assert copy.ctypes.data % alignment.BYTES == 0


def test_an_aligned_array_is_not_copied():
    once = alignment.aligned(misaligned((5, 3), np.float32))
    assert alignment.aligned(once) is once


def test_a_transposed_array_becomes_contiguous():
    copy = alignment.aligned(misaligned((5, 3), np.float32).T)
    assert copy.flags.c_contiguous
