"""Tells a process when another one ends.

Every process holds a connection to process 0, which the operating system closes with
the process, however it ends.
"""

import socket
import threading
from collections.abc import Callable

ENDED_WELL = b"."
"""What a process sends before it closes its connections on purpose."""


class Peers:
    """Connections between the processes of a run.

    Args:
      process: index of this process.
      count: number of processes.
      on_end: called in a thread with the index of a process that ended without `leave`.

    Attributes:
      port: port that process 0 listens at; 0 in the others.
    """

    def __init__(self, process: int, count: int, on_end: Callable[[int], None]):
        self._process = process
        self._count = count
        self._on_end = on_end
        # The operating system chooses a free port.
        self._server = socket.create_server(("", 0)) if process == 0 else None
        self._connections: list[socket.socket] = []
        self.port = self._server.getsockname()[1] if self._server else 0

    def connect(self, host: str, port: int) -> None:
        """Connects all processes with process 0.

        Args:
          host: where process 0 is.
          port: its `port`.
        """
        if self._server:
            for _ in range(self._count - 1):
                connection, _ = self._server.accept()
                # The first four bytes say who connects.
                self._watch(connection, int.from_bytes(connection.recv(4), "big"))
            self._server.close()
        else:
            connection = socket.create_connection((host, port))
            connection.sendall(self._process.to_bytes(4, "big"))
            self._watch(connection, 0)

    def leave(self) -> None:
        """Tells the others that this process ends as it should."""
        for connection in self._connections:
            connection.sendall(ENDED_WELL)

    def _watch(self, connection: socket.socket, process: int) -> None:
        # A host that loses power closes no connection; the keepalive notices.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections.append(connection)
        threading.Thread(
            target=self._listen, args=(connection, process), daemon=True
        ).start()

    def _listen(self, connection: socket.socket, process: int) -> None:
        try:
            last = connection.recv(1)
        # The connection is reset when the process is killed.
        except OSError:
            last = b""
        if last != ENDED_WELL:
            self._on_end(process)
