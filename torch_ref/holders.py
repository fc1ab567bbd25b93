"""Which files a living process holds, so that what a killed one has left can go."""

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterator

PROCESSES = pathlib.Path("/proc")


def left_behind(paths: Collection[pathlib.Path]) -> set[pathlib.Path]:
    """Returns the files and folders of this user that no process of this host holds.

    A process holds what it has open and the folder that it is in. Where processes
    cannot be looked at (not Linux) everything counts as held.
    """
    own = {path.resolve() for path in paths if _is_own(path)}
    if not own or not (PROCESSES / "self" / "fd").is_dir():
        return set()
    held = {pathlib.Path(name) for name in _held()}
    return own - held


def _is_own(path: pathlib.Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_uid == os.getuid()
    return False


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
