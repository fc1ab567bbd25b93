"""Tests of jaxnn/experiment/data/sources/array_files.py."""

import re
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from jaxnn.experiment.data.sources import array_files
from jaxnn.experiment.errors import UserError

X = np.arange(6.0).reshape(3, 2)
Y = np.arange(3)


@pytest.fixture
def folder(tmp_path):
    """Files of X and Y: parts/[ab].npz, shards/[xy]_00[01].npy, and one "a.npz,b"."""
    for name in ("parts", "shards", "empty"):
        (tmp_path / name).mkdir()
    for name in ("parts/a", "parts/b", "a.npz,b"):
        with (
            tmp_path
            / name.replace("parts/a", "parts/a.npz").replace("parts/b", "parts/b.npz")
        ).open("wb") as file:
            np.savez(file, x=X, y=Y)
    for number in range(2):
        np.save(tmp_path / f"shards/x_00{number}.npy", X + number)
        np.save(tmp_path / f"shards/y_00{number}.npy", Y + number)
    np.save(tmp_path / "shards/mean.npy", X[0])
    return tmp_path


class TestFind:
    @pytest.mark.parametrize(
        ("data_path", "names"),
        [
            ("parts/a.npz", ["parts/a.npz"]),
            ("parts/b.npz,parts/a.npz", ["parts/a.npz", "parts/b.npz"]),
            ("parts/*.npz", ["parts/a.npz", "parts/b.npz"]),
            ("parts/*.npz,parts/a.npz", ["parts/a.npz", "parts/b.npz"]),
            ("a.npz,b", ["a.npz,b"]),
            ("nowhere.npz", ["nowhere.npz"]),
            (
                "shards",
                [
                    "shards/x_000.npy",
                    "shards/x_001.npy",
                    "shards/y_000.npy",
                    "shards/y_001.npy",
                ],
            ),
            ("shards/[xy]_001.npy", ["shards/x_001.npy", "shards/y_001.npy"]),
        ],
    )
    def test_sorted_files(self, folder, monkeypatch, data_path, names):
        monkeypatch.chdir(folder)
        assert [str(path) for path in array_files.find(data_path)] == names


class TestRead:
    @pytest.mark.parametrize("mapped", [False, True])
    @pytest.mark.parametrize(
        ("data_path", "names", "offsets"),
        [
            ("shards", ["x_000.npy", "x_001.npy"], [0, 1]),
            ("shards/?_001.npy", ["x_001.npy"], [1]),
            ("shards/y_001.npy,shards/x_001.npy", ["x_001.npy"], [1]),
            ("parts/*", ["a.npz", "b.npz"], [0, 0]),
        ],
    )
    def test_parts(self, folder, monkeypatch, data_path, names, offsets, mapped):
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0 if mapped else 2**28)
        monkeypatch.chdir(folder)
        parts, is_mapped = array_files.read(data_path)
        assert is_mapped == mapped
        assert [part.x_path.name for part in parts] == names
        for part, offset in zip(parts, offsets, strict=True):
            for ours, theirs in ((part.x, X + offset), (part.y, Y + offset)):
                assert isinstance(ours, np.memmap) == mapped
                np.testing.assert_array_equal(np.asarray(ours), theirs, strict=True)

    def test_maps_from_a_size_of_all_files_together(self, folder, monkeypatch):
        size = sum(path.stat().st_size for path in folder.glob("parts/*"))
        for limit, mapped in ((size, True), (size + 1, False)):
            monkeypatch.setattr(array_files, "MAPPED_FROM", limit)
            assert array_files.read(f"{folder}/parts/*")[1] == mapped

    @given(st.data())
    @settings(deadline=None, max_examples=60, derandomize=True)
    def test_a_member_of_an_archive_is_mapped_as_it_is(self, tmp_path_factory, data):
        path = tmp_path_factory.getbasetemp() / "members.npz"
        dtype = data.draw(st.sampled_from(["<f8", ">f4", "<i2", "u1", "?", "<f2"]))
        x = data.draw(
            arrays(
                dtype,
                array_shapes(min_dims=1, max_dims=4, max_side=5),
                elements={"allow_nan": False} if "f" in dtype else None,
            )
        )
        x = np.asfortranarray(x) if data.draw(st.booleans()) else x
        np.savez(
            path, before=np.zeros(data.draw(st.integers(0, 5)), np.uint8), x=x, y=Y
        )
        held = array_files._read_npz(path, mapped=True)
        assert all(isinstance(array, np.memmap) for array in held)
        for ours, theirs in zip(held, (x, Y)):
            np.testing.assert_array_equal(np.asarray(ours), theirs, strict=True)

    def test_a_compressed_member_is_read(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", x=X, y=Y)
        held = array_files._read_npz(tmp_path / "a.npz", mapped=True)
        assert not any(isinstance(array, np.memmap) for array in held)
        np.testing.assert_array_equal(held[0], X, strict=True)


class TestBadInput:
    @pytest.mark.parametrize("mapped", [False, True])
    @pytest.mark.parametrize(
        ("data_path", "problem"),
        [
            (
                "empty",
                "empty: the folder has no x.npy and y.npy, or x_000.npy, y_000.npy, "
                "x_001.npy, ...",
            ),
            ("empty/*.npz", "no file fits empty/*.npz"),
            ("nowhere.npz", "cannot read nowhere.npz: No such file"),
            (
                "shards/mean.npy",
                "shards/mean.npy: is not one of x.npy and y.npy, or x_000.npy",
            ),
            ("shards/x_000.npy", "shards/x_000.npy: its partner y_000.npy is missing"),
            ("shards/y*", "shards/y_000.npy: its partner x_000.npy is missing"),
            (
                "half",
                "half/x.npy: the header promises 48 bytes, [3, 2] of float64, and",
            ),
            ("half/x.npy,nowhere/y.npy", "half/x.npy: its partner y.npy is missing"),
            (
                "shards/x_000.npy,shards/y_000.npy,half/a.npz",
                "half/a.npz: is not a whole .npz file of plain arrays",
            ),
            ("objects", "objects/x.npy: is not a whole .npy file of a plain array"),
            (
                "objects/a.npz",
                "objects/a.npz: is not a whole .npz file of plain arrays",
            ),
        ],
    )
    def test_one_line_that_names_the_file(
        self, folder, monkeypatch, data_path, problem, mapped
    ):
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0 if mapped else 2**28)
        monkeypatch.chdir(folder)
        for name in ("half", "objects"):
            (folder / name).mkdir()
            np.save(folder / name / "y.npy", Y)
        whole = (folder / "shards/x_000.npy").read_bytes()
        (folder / "half/x.npy").write_bytes(whole[:-8])
        (folder / "half/a.npz").write_bytes((folder / "parts/a.npz").read_bytes()[:-8])
        np.save(folder / "objects/x.npy", np.array([None] * 3), allow_pickle=True)
        np.savez(folder / "objects/a.npz", x=np.array([None] * 3), y=Y)
        with pytest.raises(
            UserError, match=rf"^--data_path: {re.escape(problem)}[^\n]*$"
        ):
            array_files.read(data_path)

    @pytest.mark.parametrize("mapped", [False, True])
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            (b"'shape': (3,), }", b"'shape': ((((3,)", "EOF in multi-line statement"),
            (b"{'descr'", b"{b'escr'", "not supported between instances of"),
        ],
    )
    def test_a_header_that_numpy_stumbles_over(
        self, folder, monkeypatch, old, new, problem, mapped
    ):
        monkeypatch.setattr(array_files, "MAPPED_FROM", 0 if mapped else 2**28)
        path = folder / "shards/y_000.npy"
        path.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(
            UserError,
            match=rf"^--data_path: {path}: is not a whole .npy [^\n]*{problem}[^\n]*$",
        ):
            array_files.read(str(folder / "shards"))

    def test_members_that_are_no_arrays(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for name in ("x.npy", "y.npy"):
                archive.writestr(name, b"text")
        with pytest.raises(
            UserError,
            match=r"a\.npz: is not a whole \.npz file of plain arrays \(EOF: ",
        ):
            array_files.read(str(tmp_path / "a.npz"))

    def test_an_array_under_the_name_of_an_archive(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        (tmp_path / "a.npy").rename(tmp_path / "a.npz")
        with pytest.raises(
            UserError,
            match=r"a\.npz: is not a whole \.npz file of plain arrays \(it holds "
            r"ndarray\)",
        ):
            array_files.read(str(tmp_path / "a.npz"))

    def test_an_encrypted_member(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez(path, x=X, y=Y)
        content = bytearray(path.read_bytes())
        for signature, flags_at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            content[content.index(signature) + flags_at] |= 1
        path.write_bytes(content)
        with pytest.raises(
            UserError,
            match=r"a\.npz: is not a whole \.npz file of plain arrays \(.*encrypted",
        ):
            array_files.read(str(path))


@pytest.mark.parametrize("bug", [TypeError, AttributeError, ValueError])
def test_a_bug_of_our_own_is_not_called_a_broken_file(folder, monkeypatch, bug):
    def broken(*_):
        raise bug

    monkeypatch.setattr(array_files, "MAPPED_FROM", 0)
    monkeypatch.setattr(array_files, "_map_array", broken)
    with pytest.raises(bug):
        array_files.read(str(folder / "parts/a.npz"))
