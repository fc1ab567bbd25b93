"""Files of NumPy arrays: which ones `--data_path` names, and their x and y, mapped
where they are large.

A mapped array stays in its file; the pages that are used are read when they are, and
memory may be smaller.
"""

import contextlib
import functools
import glob
import pathlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from jaxnn.experiment.errors import UserError

MAPPED_FROM = 2**28
"""Bytes of all files together from which on they are mapped: what is smaller is checked
and scaled once, not often."""
NPY_NAMES = re.compile(r"([xy])((?:_\d+)?)\.npy")
NAMING = "x.npy and y.npy, or x_000.npy, y_000.npy, x_001.npy, ..."
BROKEN = (
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy raises on files that hold something else, half of it, or an encrypted
member."""
T = TypeVar("T")
Whole = Callable[[], contextlib.AbstractContextManager[None]]


class Shard(NamedTuple):
    """Samples of one data set that are in one .npz file or one pair of .npy files.

    Attributes:
      x_path, y_path: where they are.
      x, y: [samples, ...], perhaps mapped.
    """

    x_path: pathlib.Path
    y_path: pathlib.Path
    x: np.ndarray
    y: np.ndarray


def read(data_path: str) -> tuple[list[Shard], bool]:
    """The data set that `--data_path` names, in the order of the files' names, and
    whether it is mapped.

    Compressed members of an .npz file cannot be mapped; they are read.

    Args:
      data_path: .npz files, or .npy files and folders of them named `NAMING`;
        comma-separated, or as a glob pattern.

    Raises:
      UserError: there are none, or one cannot be read, has no partner or is something
        else.
    """
    paths = find(data_path)
    pairs = _pairs([path for path in paths if path.suffix == ".npy"])
    mapped = sum(path.stat().st_size for path in paths if path.exists()) >= MAPPED_FROM
    found = [
        Shard(path, path, *_read_npz(path, mapped))
        for path in paths
        if path.suffix != ".npy"
    ]
    return found + [
        Shard(x, y, _read_npy(x, mapped), _read_npy(y, mapped)) for x, y in pairs
    ], mapped


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
            raise UserError(
                f"--data_path: {path}: is not one of {NAMING}; or put x and y into an "
                ".npz file"
            )
        partner = path.with_name(f"{'y' if named[1] == 'x' else 'x'}{named[2]}.npy")
        if partner not in paths:
            raise UserError(
                f"--data_path: {path}: its partner {partner.name} is missing"
            )
    return [
        (path, path.with_name("y" + path.name[1:]))
        for path in paths
        if path.name.startswith("x")
    ]


def _read_npy(path: pathlib.Path, mapped: bool) -> np.ndarray:
    with _whole(path, ".npy file of a plain array", "numpy.save"):
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


def _read_npz(path: pathlib.Path, mapped: bool) -> list[np.ndarray]:
    whole = functools.partial(
        _whole, path, ".npz file of plain arrays", "numpy.savez(path, x=x, y=y)"
    )
    with whole():
        file = path.open("rb")
    with file:
        with whole():
            archive = _of_type(np.lib.npyio.NpzFile, np.load(file, allow_pickle=False))
        missing = [name for name in ("x", "y") if name not in archive.files]
        if missing:
            raise UserError(
                f"--data_path: {path}: has no array {missing[0]!r}; it has "
                f"{', '.join(archive.files)}"
            )
        return [_read_member(file, archive, name, whole, mapped) for name in ("x", "y")]


def _read_member(
    file: BinaryIO, archive: np.lib.npyio.NpzFile, name: str, whole: Whole, mapped: bool
) -> np.ndarray:
    """An array of an archive, mapped if that is wanted and can be."""
    if (
        mapped
        and (
            array := _map_member(file, archive.zip.NameToInfo.get(f"{name}.npy"), whole)
        )
        is not None
    ):
        return array
    with whole():
        return _of_type(np.ndarray, archive[name])


def _map_member(
    file: BinaryIO, member: zipfile.ZipInfo | None, whole: Whole
) -> np.ndarray | None:
    """The array that lies uncompressed within an archive; None where it has to be read.

    A member begins with a header of 30 bytes, whose last four are the lengths of what
    follows it (PKWARE's APPNOTE.TXT, 4.3.7).
    """
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        return None
    with whole():
        file.seek(member.header_offset + 26)
    file.seek(
        int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little"),
        1,
    )
    return _map_array(file, whole)


def _map_array(file: BinaryIO, whole: Whole) -> np.ndarray | None:
    """The array whose .npy header is next in a file; None where it has to be read."""
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with whole():
        version = np.lib.format.read_magic(file)
    if version not in headers:
        return None
    with whole():
        shape, by_columns, dtype = headers[version](file)
    if dtype.hasobject:
        return None
    with whole():
        return np.memmap(
            file, dtype, "r", file.tell(), shape, "F" if by_columns else "C"
        )


@contextlib.contextmanager
def _whole(path: pathlib.Path, kind: str, writer: str) -> Iterator[None]:
    """Around single calls of NumPy, so that an error of our own is not taken for one in
    the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--data_path: cannot read {path}: {error.strerror or error}"
        ) from None
    except BROKEN as error:
        raise UserError(
            f"--data_path: {path}: is not a whole {kind} "
            f"({' '.join(str(error).split())}); write it with {writer}"
        ) from None


def _of_type(kind: type[T], held: object) -> T:
    """What NumPy has read: from files that were named wrongly, an array or the bytes of
    a member."""
    if not isinstance(held, kind):
        raise ValueError(f"it holds {type(held).__name__}")
    return held
