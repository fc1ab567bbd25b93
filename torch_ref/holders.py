"""Which files a living process holds, so that what a killed one has left can go."""

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterator

PROCESSES = pathlib.Path("/proc")
SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "9p", "fuse")
"""What the names of file systems begin with that other hosts may write to."""


def left_behind(paths: Collection[pathlib.Path]) -> set[pathlib.Path]:
    """Returns the files and folders of this user that no process of this host holds.

    A process holds what it has open and the folder that it is in. What `can_tell` is
    False of counts as held.
    """
    own = {path.resolve() for path in paths if can_tell(path)}
    if not own:
        return set()
    return own - {pathlib.Path(name) for name in _held()}


def can_tell(path: pathlib.Path) -> bool:
    """True of an existing file or folder whose holders are seen from here.

    It is this user's, on Linux, and no other host's process can hold it.
    """
    is_own = path.exists() and path.stat().st_uid == os.getuid()
    return is_own and not _file_system(path).startswith(SHARED)


def _file_system(path: pathlib.Path) -> str:
    """Returns the type of the file system of a path; `SHARED[0]` if it is unknown."""
    # "device mountpoint type options 0 0"
    mounts = PROCESSES / "self" / "mounts"
    lines = mounts.read_text().splitlines() if mounts.is_file() else []
    types = {line.split()[1]: line.split()[2] for line in lines}
    folders = map(str, [path.resolve(), *path.resolve().parents])
    return next((types[name] for name in folders if name in types), SHARED[0])


def _held() -> Iterator[str]:
    """Yields the paths that the processes hold, as far as this user may look."""
    for process in PROCESSES.glob("[0-9]*"):
        # Another user's, or one that has just ended.
        with contextlib.suppress(OSError):
            yield os.readlink(process / "cwd")
        with contextlib.suppress(OSError):
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    yield os.readlink(file)
