"""Tests of jaxnn/experiment/data/sources/byte_files.py."""

import gzip
import pathlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxnn.experiment.data.sources.byte_files import read_cifar, read_idx
from jaxnn.experiment.errors import UserError


def idx_bytes(array):
    return (
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        + array.tobytes()
    )


def cifar_bytes(images, labels):
    return b"".join(
        bytes([label]) + b"".join(image[..., channel].tobytes() for channel in range(3))
        for image, label in zip(images, labels)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bytes")


class TestReadIdx:
    @given(
        arrays(
            np.uint8,
            st.one_of(
                st.tuples(st.integers(0, 9)), st.tuples(*[st.integers(1, 4)] * 3)
            ),
        ),
        st.booleans(),
    )
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_round_trip(self, folder, array, packed):
        path = folder / ("a.gz" if packed else "a")
        path.write_bytes(
            gzip.compress(idx_bytes(array)) if packed else idx_bytes(array)
        )
        np.testing.assert_array_equal(read_idx(path, array.ndim), array, strict=True)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (
                b"",
                "starts with 0x, not as an IDX file of 3 dimensions with 0x00000803; "
                "give the official file",
            ),
            (
                idx_bytes(np.zeros(3, np.uint8)),
                "starts with 0x00000801, not as an IDX file of 3",
            ),
            (
                b"\0\0\x0d\x03" + bytes(12),
                "starts with 0x00000d03, not as an IDX file of 3",
            ),
            (
                idx_bytes(np.zeros((2, 3, 4), np.uint8))[:-1],
                "has 39 bytes, its header promises 40; fetch it again",
            ),
            (
                idx_bytes(np.zeros((2, 3, 4), np.uint8)) + b"x",
                "has 41 bytes, its header promises 40; fetch it again",
            ),
            (
                b"\0\0\x08\x03" + b"\xff" * 12,
                f"has 16 bytes, its header promises {16 + (2**32 - 1) ** 3}; fetch it "
                "again",
            ),
            (
                b"\0\0\x08\x03\0\0",
                "has 6 bytes, its header promises 17; fetch it again",
            ),
        ],
    )
    def test_what_is_no_such_file(self, folder, content, problem):
        path = folder / "bad"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"^--data_path: {path}: {problem}"):
            read_idx(path, 3)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda c: c[:-9],
            lambda c: c[:5],
            lambda c: c[:12] + b"\xff" + c[13:],
        ],
    )
    def test_a_damaged_gzip_file(self, folder, damage):
        path = folder / "bad.gz"
        path.write_bytes(
            damage(gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8))))
        )
        with pytest.raises(
            UserError,
            match=rf"^--data_path: {path}: not a whole gzip file; fetch it again$",
        ):
            read_idx(path, 1)

    @pytest.mark.parametrize("name", ["images", "images.gz"])
    @pytest.mark.parametrize("pack", [gzip.compress, bytes])
    def test_packed_or_not_whatever_the_name(self, folder, name, pack):
        array = np.arange(200, dtype=np.uint8)
        (folder / name).write_bytes(pack(idx_bytes(array)))
        np.testing.assert_array_equal(read_idx(folder / name, 1), array)

    def test_a_folder(self, folder):
        with pytest.raises(
            UserError, match=rf"^--data_path: cannot read {folder}: Is a directory$"
        ):
            read_idx(pathlib.Path(folder), 1)


class TestReadCifar:
    @given(count=st.integers(1, 4), seed=st.integers(0, 99))
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_round_trip(self, folder, count, seed):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        (folder / "batch.bin").write_bytes(cifar_bytes(images, labels))
        read_images, read_labels = read_cifar(folder / "batch.bin")
        np.testing.assert_array_equal(read_images, images, strict=True)
        np.testing.assert_array_equal(read_labels, labels, strict=True)

    @pytest.mark.parametrize("length", [0, 1, 3072, 3074])
    def test_no_whole_records(self, folder, length):
        path = folder / "bad.bin"
        path.write_bytes(bytes(length))
        with pytest.raises(
            UserError,
            match=f"^--data_path: {path}: has {length} bytes, not a multiple of 3073, ",
        ):
            read_cifar(path)
