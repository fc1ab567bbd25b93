"""TCP ports where the processes of a run meet."""

import contextlib
import random
import socket


def free_port() -> int:
    """Returns a port on which no process listens."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            # Below the ephemeral ports (Linux: 32768 and up), which the kernel may give
            # to an outgoing connection before the coordinator binds the port.
            # SystemRandom, because runs that seed `random` alike would draw alike.
            port = random.SystemRandom().randrange(15_000, 30_000)
            probe.bind(("127.0.0.1", port))
            return port
