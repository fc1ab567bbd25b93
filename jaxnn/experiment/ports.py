"""TCP ports where the processes of a run meet."""

import contextlib
import random
import socket


def free_port() -> int:
    """Returns a port on which no process listens."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            # Below the ephemeral range (Linux: 32768 and up), from which the kernel could
            # give the port to an outgoing connection before the coordinator binds it.
            # SystemRandom, because runs that seed `random` alike would draw alike.
            port = random.SystemRandom().randrange(15_000, 30_000)
            probe.bind(("127.0.0.1", port))
            return port
