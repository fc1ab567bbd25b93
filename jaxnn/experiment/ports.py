"""Where processes of one run meet."""

import contextlib
import random
import socket


def free_port() -> int:
    """A port that nobody listens at, below those that systems hand out to connections,
    which would take it again."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.SystemRandom().randrange(15_000, 30_000)
            probe.bind(("127.0.0.1", port))
            return port
