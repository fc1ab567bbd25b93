"""Tells a process when another one ends: each holds a connection to process 0, which
closes with the process."""

import socket
import threading
from collections.abc import Callable

FAREWELL = b"."


class Company:
    """The connections between the processes of a run.

    Args:
      process: this one's number.
      count: of processes.
      on_end: called in a thread with the number of a process that ended without `part`.

    Attributes:
      port: that process 0 listens at; 0 in the others.
    """

    def __init__(self, process: int, count: int, on_end: Callable[[int], None]):
        self._process, self._count, self._on_end = process, count, on_end
        self._server = socket.create_server(("", 0)) if process == 0 else None
        self._connections: list[socket.socket] = []
        self.port = self._server.getsockname()[1] if self._server else 0

    def meet(self, host: str, port: int) -> None:
        """Connects all processes with process 0, at `host`."""
        if self._server:
            for _ in range(self._count - 1):
                connection, _ = self._server.accept()
                self._watch(connection, int.from_bytes(connection.recv(4), "big"))
            self._server.close()
        else:
            connection = socket.create_connection((host, port))
            connection.sendall(self._process.to_bytes(4, "big"))
            self._watch(connection, 0)

    def part(self) -> None:
        """Says farewell: what ends now has ended well."""
        for connection in self._connections:
            connection.sendall(FAREWELL)

    def _watch(self, connection: socket.socket, process: int) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections.append(connection)
        threading.Thread(
            target=self._listen, args=(connection, process), daemon=True
        ).start()

    def _listen(self, connection: socket.socket, process: int) -> None:
        try:
            last_words = connection.recv(1)
        except OSError:  # reset: the process was killed
            last_words = b""
        if last_words != FAREWELL:
            self._on_end(process)
