"""Tells a process when another one ends, or is stopped.

Every process holds a connection to process 0, which the operating system closes with
the process, however it ends. A process that is stopped, or whose host hangs, keeps its
connections and sends nothing more through them.
"""

import contextlib
import socket
import threading
from collections.abc import Callable

ENDED_WELL = b"."
"""What a process sends before it closes its connections on purpose."""
BEAT = b"+"
"""What it sends while it lives."""
BEAT_SECONDS = 10.0
SILENT_SECONDS = 90.0
"""Silence after which a process counts as stopped. Its thread sends while XLA compiles
or computes, but not while an extension holds Python's lock."""
MISSED = 2
"""Parts of the silence. One may have passed while this very process was stopped."""


class Peers:
    """Connections between the processes of a run.

    Args:
      process: index of this process.
      count: number of processes.
      on_end: called in a thread with the index of a process that ended without `leave`,
        and True if it is only silent.
      beat: seconds between signs of life.
      silence: seconds without one after which a process counts as stopped.

    Attributes:
      port: port that process 0 listens at; 0 in the others.
    """

    def __init__(
        self,
        process: int,
        count: int,
        on_end: Callable[[int, bool], None],
        beat: float = BEAT_SECONDS,
        silence: float = SILENT_SECONDS,
    ):
        self._process = process
        self._count = count
        self._on_end = on_end
        self._beat = beat
        self._silence = silence
        self._has_left = threading.Event()
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
        threading.Thread(target=self._send_beats, daemon=True).start()
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
        self._has_left.set()
        self._send(ENDED_WELL)

    def _watch(self, connection: socket.socket, process: int) -> None:
        # A host that loses power closes no connection; the keepalive notices.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.settimeout(self._silence / MISSED)
        self._connections.append(connection)
        threading.Thread(
            target=self._listen, args=(connection, process), daemon=True
        ).start()

    def _send_beats(self) -> None:
        while not self._has_left.wait(self._beat):
            self._send(BEAT)

    def _send(self, sign: bytes) -> None:
        for connection in list(self._connections):
            # Broken by a process that has ended: whoever listens hears how.
            with contextlib.suppress(OSError):
                connection.sendall(sign)

    def _listen(self, connection: socket.socket, process: int) -> None:
        missed = 0
        last = BEAT
        while last == BEAT and missed < MISSED:
            try:
                last = connection.recv(1)
                missed = 0
            except TimeoutError:
                missed += 1
            # The connection is reset when the process is killed.
            except OSError:
                last = b""
        # Whoever has left needs the others no more.
        if last != ENDED_WELL and not self._has_left.is_set():
            self._on_end(process, last == BEAT)
