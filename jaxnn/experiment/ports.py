"""TCP ports where the processes of a run meet.

A port that is chosen here is bound elsewhere, seconds or minutes later. Until then it
is reserved: by a lock (flock) on a file of its own, which lasts as long as the process
that chose it, and by the age of the file, for a process that ends at once.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import random
import socket
import tempfile
import time

LEAST, BELOW = 15_000, 30_000
"""Below the ephemeral ports (Linux: 32768 and up), which the kernel may give to an
outgoing connection before the coordinator binds the port."""
RESERVED_SECONDS = 120
"""Age up to which a reservation counts when its process has ended."""
FOLDER = f"jaxnn-ports-{os.getuid()}"
"""Of the reservations, among the machine's temporary files."""

_reserved: list[int] = []
"""Open files, locked until this process ends."""


def free_port() -> int:
    """Returns a port on which no process listens, and that no other call returns.

    To other processes of this user it is not given while this one lives.
    """
    while True:
        # SystemRandom, because runs that seed `random` alike would draw alike.
        port = random.SystemRandom().randrange(LEAST, BELOW)
        if not _is_bound(port) and _reserve(port):
            return port


def is_taken(port: int) -> bool:
    """True if a process listens on a port, at any address of this host."""
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=is_dual).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _is_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _reserve(port: int) -> bool:
    """Reserves a port; returns False if another process has."""
    try:
        # Asked now: finding the place for temporary files writes one.
        folder = pathlib.Path(tempfile.gettempdir(), FOLDER)
        folder.mkdir(mode=0o700, exist_ok=True)
        file = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    # Where nothing can be reserved, a random port has to do.
    except OSError:
        return True
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_recent(file):
            os.pwrite(file, b".", 0)
            _reserved.append(file)
            return True
    os.close(file)
    return False


def _is_recent(file: int) -> bool:
    """True if a port was reserved a short time ago."""
    status = os.fstat(file)
    # Only who has reserved a port writes into its file.
    return status.st_size > 0 and time.time() - status.st_mtime < RESERVED_SECONDS
