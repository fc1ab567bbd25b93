"""Files that hold data, read whole; what is wrong with one is said in one line that
names it."""

import gzip
import pathlib
import zlib

from jaxnn.experiment.errors import UserError


def read_bytes(path: pathlib.Path) -> bytes:
    """The content of a file, unpacked if its name ends in .gz.

    Raises:
      UserError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(
            f"--data_path: {path}: not a whole gzip file; fetch it again"
        ) from None
    except OSError as error:
        raise UserError(f"--data_path: cannot read {path}: {error.strerror}") from None


def read_text(path: pathlib.Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
      UserError: it cannot be read or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--data_path: {path}: not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None
