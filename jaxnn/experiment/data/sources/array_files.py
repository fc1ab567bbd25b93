"""NumPy files of a data set: finds those of `--data_path`, reads or maps their x and y.

A memory-mapped array stays in its file; pages are read when they are used, so that the
data may be larger than memory.
"""

import contextlib
import functools
import glob
import pathlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from jaxnn.experiment.data.sources import array_sizes
from jaxnn.experiment.data.sources.array_sizes import Whole
from jaxnn.experiment.errors import MissingData, UserError

# Bytes of all files together from which on they are mapped. Smaller data are read: then
# they are checked and scaled once, and not whenever a row is used.
MAPPED_FROM = 2**28

NPY_NAMES = re.compile(r"([xy])((?:_\d+)?)\.npy")
NAMING = "x.npy and y.npy, or x_000.npy, y_000.npy, x_001.npy, ..."

# What NumPy raises on files that are of another kind, truncated, or .npz with an
# encrypted member.
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
T = TypeVar("T")


class Shard(NamedTuple):
    """Samples of a data set in one .npz file or one pair of .npy files.

    Attributes:
      x_path: path of the file with x.
      y_path: path of the file with y.
      x: [samples, ...], possibly mapped.
      y: [samples, ...], possibly mapped.
    """

    x_path: pathlib.Path
    y_path: pathlib.Path
    x: np.ndarray
    y: np.ndarray


def read(data_path: str) -> tuple[list[Shard], bool]:
    """Reads or maps the files of `--data_path`, in the order of their names.

    Compressed members of an .npz file cannot be mapped; they are read.

    Args:
      data_path: .npz files, .npy files named `NAMING`, or folders of such .npy files;
        comma-separated or a glob pattern.

    Returns:
      The shards, and True if they are mapped.

    Raises:
      UserError: there are no such files, or one cannot be read, has no partner or is of
        another kind.
    """
    paths = find(data_path)
    pairs = _pairs([path for path in paths if path.suffix == ".npy"])
    # Missing files are reported when they are opened.
    size = sum(path.stat().st_size for path in paths if path.exists())
    mapped = size >= MAPPED_FROM

    archives = [path for path in paths if path.suffix != ".npy"]
    shards = [Shard(path, path, *_read_npz(path, mapped)) for path in archives]
    shards += [
        Shard(x, y, _read_npy(x, mapped), _read_npy(y, mapped)) for x, y in pairs
    ]
    return shards, mapped


def find(data_path: str) -> list[pathlib.Path]:
    """Returns the files of a `--data_path`, sorted.

    Raises:
      UserError: a pattern or a folder has none.
    """
    # A file whose name contains a comma is one file.
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
        raise MissingData(f"--data_path: no file fits {entry}")
    return found


def _pairs(paths: list[pathlib.Path]) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Returns (path of x, path of y) of .npy files, each of which needs its partner."""
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
    whole = functools.partial(_whole, path, ".npy file of a plain array", "numpy.save")
    with whole():
        file = path.open("rb")
    with file:
        array_sizes.check(file, path.stat().st_size, f"--data_path: {path}", whole)
    with whole():
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


def _read_npz(path: pathlib.Path, mapped: bool) -> list[np.ndarray]:
    """Returns [x, y] of an archive."""
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
    """Returns an array of an archive, mapped if that is wanted and possible."""
    # np.load ignores mmap_mode for .npz files.
    if mapped and archive.zip:
        array = _map_member(file, archive.zip.NameToInfo.get(f"{name}.npy"), whole)
        if array is not None:
            return array
    if archive.zip and (member := archive.zip.NameToInfo.get(f"{name}.npy")):
        with whole():
            stream = archive.zip.open(member)
        where = f"--data_path: {file.name}: {name}"
        with stream:
            num_bytes = array_sizes.check(stream, member.file_size, where, whole)
        array_sizes.refuse_unless_free(num_bytes, where)
    with whole():
        return _of_type(np.ndarray, archive[name])


def _map_member(
    file: BinaryIO, member: zipfile.ZipInfo | None, whole: Whole
) -> np.ndarray | None:
    """Maps an uncompressed member of an archive; None: it has to be read."""
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        return None
    # The member begins with a header of 30 bytes, name and extra field; the last four
    # bytes of the header are the lengths of these two (PKWARE's APPNOTE.TXT, 4.3.7).
    # The central directory, which zipfile reads, has an extra field of its own.
    with whole():
        file.seek(member.header_offset + 26)
    name_length = int.from_bytes(file.read(2), "little")
    extra_length = int.from_bytes(file.read(2), "little")
    file.seek(name_length + extra_length, 1)
    return _map_array(file, whole)


def _map_array(file: BinaryIO, whole: Whole) -> np.ndarray | None:
    """Maps the array whose .npy header is next in a file; None: it has to be read."""
    header = array_sizes.header(file, whole)
    if header is None:
        return None
    shape, by_columns, dtype = header
    # Objects are pickled; reading the member refuses them with NumPy's message.
    if dtype.hasobject:
        return None
    order = "F" if by_columns else "C"
    with whole():
        return np.memmap(file, dtype, "r", file.tell(), shape, order)


@contextlib.contextmanager
def _whole(path: pathlib.Path, kind: str, writer: str) -> Iterator[None]:
    """Turns NumPy's errors about a file into UserError.

    It goes around single calls of NumPy, so that an error in this module is not taken
    for one in the file.
    """
    try:
        yield
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        raise (MissingData if is_missing else UserError)(
            f"--data_path: cannot read {path}: {error.strerror or error}"
        ) from None
    except BROKEN as error:
        raise UserError(
            f"--data_path: {path}: is not a whole {kind} "
            f"({' '.join(str(error).split())}); write it with {writer}"
        ) from None


def _of_type(kind: type[T], held: object) -> T:
    """Returns what NumPy has read; raises ValueError if it is of another type."""
    # A .npy file that is named .npz loads as an array, and an archive's member that is
    # no .npy file as bytes.
    if not isinstance(held, kind):
        raise ValueError(f"it holds {type(held).__name__}")
    return held
