"""One process at a time in the folder of a run.

The folder itself is locked (flock): nothing is left behind by a process that is killed.
"""

import contextlib
import fcntl
import os
import pathlib
import re
from collections.abc import Iterator

from jaxnn.experiment.errors import UserError

TABLE = pathlib.Path("/proc/locks")
"""Who holds what, on Linux."""

_held: dict[pathlib.Path, int] = {}


def hold(folder: pathlib.Path) -> None:
    """Locks an existing folder until `released` ends, or this process.

    Raises:
      UserError: another process holds it.
    """
    folder = folder.resolve()
    if folder in _held:
        return
    try:
        file = _lock(folder, fcntl.LOCK_EX)
    except BlockingIOError:
        raise UserError(
            f"--workdir: {folder} is in use by {_holder(folder.stat().st_ino)}; wait "
            "for its end or stop it, or choose another folder"
        ) from None
    if file is not None:
        _held[folder] = file


def may_be_held(folder: pathlib.Path) -> bool:
    """Returns False if no process holds an existing folder, as far as can be told."""
    try:
        file = _lock(folder, fcntl.LOCK_SH)
    except BlockingIOError:
        return True
    if file is None:
        return True
    os.close(file)
    return False


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Releases at its end what was locked within it."""
    before = set(_held)
    try:
        yield
    finally:
        for folder in _held.keys() - before:
            os.close(_held.pop(folder))


def _lock(folder: pathlib.Path, kind: int) -> int | None:
    """Returns a descriptor that holds a lock on a folder; None where none can be had.

    Raises:
      BlockingIOError: another process holds it.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            raise
        # Some network file systems lock no folders.
        return None
    return file


def _holder(inode: int) -> str:
    """Returns which process holds a folder, in words."""
    # "1: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF"
    table = TABLE.read_text() if TABLE.is_file() else ""
    found = re.search(rf"FLOCK +ADVISORY +WRITE +(\d+) +\S+:{inode} ", table)
    return f"process {found[1]}" if found else "another process"
