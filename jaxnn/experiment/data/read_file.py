"""Reads whole data files; errors are one line that names the file."""

import codecs
import gzip
import pathlib
import zlib

from jaxnn.experiment.errors import MissingData, UserError

GZIP = b"\x1f\x8b"
"""What a file that is packed with gzip starts with (RFC 1952)."""

OTHERS = (
    (
        b"PK\x03\x04",
        "a zip archive, as .xlsx files are",
        "unpack it or save it as text",
    ),
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (b"\xff\xfe", "UTF-16", "convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16", "convert it to UTF-8"),
)
"""Start of a file -> what it is instead of UTF-8 text, and what to do."""


def read_bytes(path: pathlib.Path) -> bytes:
    """Returns the content of a file, decompressed if it is packed with gzip.

    What it is tells the content, not the name: archivers and mirrors add and drop .gz.

    Raises:
      MissingData: there is no such file.
      UserError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == GZIP else content
    # Not gzip, truncated, and damaged inside. BadGzipFile is an OSError and has to come
    # first.
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(
            f"--data_path: {path}: not a whole gzip file; fetch it again"
        ) from None
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        raise (MissingData if is_missing else UserError)(
            f"--data_path: cannot read {path}: {error.strerror}"
        ) from None


def is_packed(path: pathlib.Path) -> bool:
    """Returns whether a file is packed with gzip.

    Raises:
      UserError: the file cannot be read.
    """
    return read_start(path, len(GZIP)) == GZIP


def read_start(path: pathlib.Path, count: int) -> bytes:
    """Returns the first bytes of a file, as they are.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"--data_path: cannot read {path}: {error.strerror}") from None


def read_text(path: pathlib.Path) -> str:
    """Returns the text of a UTF-8 file without its byte order mark.

    Raises:
      UserError: the file cannot be read or is not UTF-8.
    """
    return decoded(path, read_bytes(path))


def decoded(path: pathlib.Path, content: bytes, is_cut: bool = False) -> str:
    """Returns the text of bytes of a UTF-8 file without its byte order mark.

    Args:
      path: the file, for messages.
      content: its bytes.
      is_cut: True if the last character may lack its end.

    Raises:
      UserError: it is not UTF-8.
    """
    for start, kind, instead in OTHERS:
        if content.startswith(start):
            raise UserError(f"--data_path: {path}: is {kind}; {instead}")
    if b"\0" in content[:100]:
        raise UserError(
            f"--data_path: {path}: holds NUL bytes; if it is UTF-16, convert it to "
            "UTF-8"
        )
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        # Some spreadsheets write one; it would be part of the first column's name.
        return decoder.decode(content, final=not is_cut).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--data_path: {path}: not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None
