"""Tests of jaxnn/experiment/data/cache.py."""

import numpy as np
import pytest

from jaxnn.experiment.data.cache import cache_folder, cached

ARRAYS = [np.arange(500, dtype=np.float32).reshape(50, 10), np.array(["a", "bc"])]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def no_source():
    raise AssertionError("made again, not read from the cache")


def assert_same(arrays):
    assert len(arrays) == len(ARRAYS)
    for one, two in zip(arrays, ARRAYS):
        np.testing.assert_array_equal(one, two, strict=True)


class TestCacheFolder:
    def test_environment_decides(self, folder, monkeypatch):
        assert cache_folder() == folder
        monkeypatch.delenv("JAXNN_CACHE")
        monkeypatch.setenv("HOME", "/somewhere")
        assert str(cache_folder()) == "/somewhere/.cache/jaxnn"


class TestCached:
    def test_gives_the_same_arrays_without_the_source(self):
        assert_same(cached("name", 1, lambda: ARRAYS))
        assert_same(cached("name", 1, no_source))

    def test_does_not_mix_up_keys(self):
        cached("name", ("a", 1), lambda: ARRAYS)
        (other,) = cached("name", ("a", 2), lambda: [np.zeros(3)])
        np.testing.assert_array_equal(other, np.zeros(3))

    @pytest.mark.parametrize("keep", [0, 1, 4, 100, 0.5, 0.999, -1])
    def test_a_truncated_file_is_ignored_and_rewritten(self, folder, keep):
        cached("name", 1, lambda: ARRAYS)
        (path,) = (folder / "datasets").iterdir()
        whole = path.read_bytes()
        path.write_bytes(
            whole[: int(keep * len(whole)) if isinstance(keep, float) else keep]
        )
        assert_same(cached("name", 1, lambda: ARRAYS))
        assert_same(cached("name", 1, no_source))

    def test_a_flipped_bit_is_noticed(self, folder):
        cached("name", 1, lambda: ARRAYS)
        (path,) = (folder / "datasets").iterdir()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert_same(cached("name", 1, lambda: ARRAYS))

    def test_leaves_no_temporary_file(self, folder):
        cached("name", 1, lambda: ARRAYS)
        (path,) = (folder / "datasets").iterdir()
        assert path.name.startswith("name-")

    def test_does_without_where_it_cannot_write(self, folder, capsys):
        folder.write_text("a file, not a folder")
        assert_same(cached("name", 1, lambda: ARRAYS))
        assert capsys.readouterr().out.startswith(f"note: no data cache in {folder}")
