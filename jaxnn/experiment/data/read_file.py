"""Reads whole data files; errors are one line that names the file."""

import gzip
import pathlib
import zlib

from jaxnn.experiment.errors import MissingData, UserError


def read_bytes(path: pathlib.Path) -> bytes:
    """Returns the content of a file, decompressed if its name ends in .gz.

    Raises:
      MissingData: there is no such file.
      UserError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
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


def read_text(path: pathlib.Path) -> str:
    """Returns the text of a UTF-8 file without its byte order mark.

    Raises:
      UserError: the file cannot be read or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        # Some spreadsheets write one; it would be part of the first column's name.
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--data_path: {path}: not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None
