"""Tests of jaxnn/experiment/data/sources/array_sizes.py."""

import io
import zipfile

import numpy as np
import pytest

from jaxnn.experiment.data.sources import array_files, array_sizes
from jaxnn.experiment.errors import UserError


def promising(shape):
    """A .npy file whose header promises a shape of float32, with 100 bytes behind."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(100)


class TestCheck:
    @pytest.mark.parametrize("kind", ["npz", "npy"])
    def test_a_header_that_promises_too_much(self, tmp_path, kind):
        y = io.BytesIO()
        np.save(y, np.arange(40))
        files = {"x.npy": promising((40, 10**12)), "y.npy": y.getvalue()}
        if kind == "npz":
            with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            for name, content in files.items():
                (tmp_path / name).write_bytes(content)
        with pytest.raises(
            UserError,
            match=r"^--data_path: .*: the header promises 146 TiB, "
            r"\[40, 1000000000000\] of float32, and the file holds 100 bytes; "
            r"write it again$",
        ):
            array_files.read(str(tmp_path / "d.npz" if kind == "npz" else tmp_path))


class TestRefuseUnlessFree:
    def test_what_does_not_fit(self, tmp_path, monkeypatch):
        monkeypatch.setattr(array_sizes, "free_memory", lambda: 2**21)
        np.savez_compressed(tmp_path / "d.npz", x=np.zeros((2**10, 2**10)), y=range(8))
        with pytest.raises(
            UserError,
            match=r"d\.npz: x: takes 8 MiB once unpacked, reading and splitting it 3 "
            r"times as much, and 2 MiB of memory are free; write it with numpy\.savez,",
        ):
            array_files.read(str(tmp_path / "d.npz"))

    def test_unknown_memory_passes(self, monkeypatch):
        monkeypatch.setattr(array_sizes, "free_memory", lambda: None)
        array_sizes.refuse_unless_free(2**60, "here")

    def test_this_machine(self):
        assert array_sizes.free_memory() is None or array_sizes.free_memory() > 2**20


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [(0, "0 bytes"), (1023, "1.02e+03 bytes"), (2**20, "1 MiB"), (6 * 2**30, "6 GiB")],
)
def test_in_words(num_bytes, words):
    assert array_sizes.in_words(num_bytes) == words
