"""Tests of jaxnn/experiment/files/safetensors_file.py against the package's own."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxnn.experiment.files import safetensors_file


class TestWrite:
    def test_reads_as_the_packages_own(self, tmp_path):
        arrays = {
            "b": np.arange(6, dtype=np.float32).reshape(2, 3),
            "a": np.float64(0.5),
            "c": np.zeros((0, 3), np.float16),
            "d": np.array([True, False]),
            "e": np.arange(3, dtype=np.int64),
            "ü": np.int32(-1),
        }
        safetensors_file.write(tmp_path / "ours", arrays)
        save_file({n: np.asarray(a) for n, a in arrays.items()}, tmp_path / "theirs")
        ours, theirs = (load_file(tmp_path / name) for name in ("ours", "theirs"))
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert ours[name].dtype == array.dtype
            np.testing.assert_array_equal(ours[name], array)

    def test_every_kind(self, tmp_path):
        arrays = {
            name: np.ones((2, 2), kind) for kind, name in safetensors_file.KINDS.items()
        }
        safetensors_file.write(tmp_path / "file", arrays)
        for name, array in load_file(tmp_path / "file").items():
            np.testing.assert_array_equal(array, arrays[name])

    def test_layouts_in_memory(self, tmp_path):
        array = np.arange(6, dtype=">f4").reshape(2, 3).T[::-1]
        safetensors_file.write(tmp_path / "file", {"a": array})
        np.testing.assert_array_equal(load_file(tmp_path / "file")["a"], array)

    def test_refuses_what_the_format_lacks(self, tmp_path):
        with pytest.raises(TypeError, match="a: safetensors has no object"):
            safetensors_file.write(tmp_path / "file", {"a": np.array([None])})
        assert not (tmp_path / "file").exists()
