"""Files of NumPy arrays: which ones `--data_path` names, and their x and y, mapped where they are large.

A mapped array stays in its file; the pages that are used are read when they are, and memory may be smaller.
"""

import glob
import pathlib
import re
import zipfile
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxnn.experiment.options import UserError

MAPPED_FROM = 2**28
"""Bytes of all files together from which on they are mapped: what is smaller is checked and scaled once, not often."""
NPY_NAMES = re.compile(r"([xy])((?:_\d+)?)\.npy")
NAMING = "x.npy and y.npy, or x_000.npy, y_000.npy, x_001.npy, ..."
BROKEN = (EOFError, ValueError, TypeError, AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises on files that hold something else, or half of it."""


class Part(NamedTuple):
    """Samples of one data set that are in one .npz file or one pair of .npy files.

    Attributes:
      x_path, y_path: where they are.
      x, y: [samples, ...], perhaps mapped.
    """

    x_path: pathlib.Path
    y_path: pathlib.Path
    x: np.ndarray
    y: np.ndarray


def read(data_path: str) -> tuple[list[Part], bool]:
    """The data set that `--data_path` names, in the order of the files' names, and whether it is mapped.

    Compressed members of an .npz file cannot be mapped; they are read.

    Args:
      data_path: .npz files, or .npy files and folders of them named `NAMING`; comma-separated, or as a glob pattern.

    Raises:
      UserError: there are none, or one cannot be read, has no partner or is something else.
    """
    paths = find(data_path)
    pairs = _pairs([path for path in paths if path.suffix == ".npy"])
    mapped = sum(path.stat().st_size for path in paths if path.exists()) >= MAPPED_FROM
    found = [Part(path, path, *_read_npz(path, mapped)) for path in paths if path.suffix != ".npy"]
    return found + [Part(x, y, _read_npy(x, mapped), _read_npy(y, mapped)) for x, y in pairs], mapped


def find(data_path: str) -> list[pathlib.Path]:
    """The files of a `--data_path`, sorted.

    Raises:
      UserError: a pattern or a folder holds none.
    """
    entries = [data_path] if pathlib.Path(data_path).exists() else data_path.split(",")
    return sorted({path for entry in entries for path in _files(entry)})


def _files(entry: str) -> list[pathlib.Path]:
    path = pathlib.Path(entry)
    if path.is_dir():
        found = [file for file in path.glob("*.npy") if NPY_NAMES.fullmatch(file.name)]
        if not found:
            raise UserError(f"--data_path: {path}: the folder has no {NAMING}")
        return found
    if path.exists() or not glob.has_magic(entry):
        return [path]
    found = [pathlib.Path(name) for name in glob.glob(entry)]
    if not found:
        raise UserError(f"--data_path: no file fits {entry}")
    return found


def _pairs(paths: list[pathlib.Path]) -> list[tuple[pathlib.Path, pathlib.Path]]:
    for path in paths:
        named = NPY_NAMES.fullmatch(path.name)
        if not named:
            raise UserError(f"--data_path: {path}: is not one of {NAMING}; or put x and y into an .npz file")
        partner = path.with_name(f"{'y' if named[1] == 'x' else 'x'}{named[2]}.npy")
        if partner not in paths:
            raise UserError(f"--data_path: {path}: its partner {partner.name} is missing")
    return [(path, path.with_name("y" + path.name[1:])) for path in paths if path.name.startswith("x")]


def _read_npy(path: pathlib.Path, mapped: bool) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except OSError as error:
        raise _unreadable(path, error) from None
    except BROKEN as error:
        raise UserError(f"--data_path: {path}: is not a whole .npy file of a plain array "
                        f"({' '.join(str(error).split())}); write it with numpy.save") from None


def _read_npz(path: pathlib.Path, mapped: bool) -> list[np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in ("x", "y") if name not in archive.files]
            if missing:
                raise UserError(f"--data_path: {path}: has no array {missing[0]!r}; it has {', '.join(archive.files)}")
            maps = [_map_member(file, archive.zip, f"{name}.npy") if mapped else None for name in ("x", "y")]
            return [archive[name] if array is None else array for name, array in zip(("x", "y"), maps)]
    except OSError as error:
        raise _unreadable(path, error) from None
    except BROKEN as error:
        raise UserError(f"--data_path: {path}: is not a whole .npz file of plain arrays "
                        f"({' '.join(str(error).split())}); write it with numpy.savez(path, x=x, y=y)") from None


def _map_member(file: BinaryIO, archive: zipfile.ZipFile, name: str) -> np.ndarray | None:
    """The array that lies uncompressed within an archive; None where it has to be read.

    A member begins with a header of 30 bytes, whose last four are the lengths of what follows it (PKWARE's
    APPNOTE.TXT, 4.3.7).
    """
    member = archive.NameToInfo.get(name)
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        return None
    file.seek(member.header_offset + 26)
    file.seek(int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little"), 1)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in header:
        return None
    shape, by_columns, dtype = header[version](file)
    if dtype.hasobject:
        return None
    return np.memmap(file, dtype, "r", file.tell(), shape, "F" if by_columns else "C")


def _unreadable(path: pathlib.Path, error: OSError) -> UserError:
    return UserError(f"--data_path: cannot read {path}: {error.strerror or error}")
