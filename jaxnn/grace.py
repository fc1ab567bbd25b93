"""Ends a run that was asked to stop and cannot: it is in a long call of XLA.

Python runs its signal handlers between bytecodes, so an epoch or a compilation that
takes minutes keeps SIGTERM and Ctrl-C waiting. The interpreter's wakeup file hears of
them at once, in whatever call the main thread is.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

ASKING = (signal.SIGINT, signal.SIGTERM)
LEAST_WAIT = 1e-3
"""Seconds; a time-out of 0 would not listen at all."""


class Limit:
    """Ends the process if a signal to stop is not obeyed in time.

    As a context it listens, and puts back at its end what there was before. It leaves
    alone a program that listens itself, as an event loop does, and other threads than
    the main one, where Python allows none of this.

    Args:
      seconds: from the signal to the end, which a second Ctrl-C brings at once;
        `obeyed` and the end of the context stop the clock.
      end: called in a thread, with the number of the signal.
    """

    def __init__(self, seconds: float, end: Callable[[int], None] | None = None):
        self._seconds = seconds
        self._end = end or self._end_process
        self._obeyed = threading.Event()
        self._stack: list[Callable[[], object]] = []

    def __enter__(self) -> "Limit":
        if threading.current_thread() is not threading.main_thread():
            return self
        heard, told = socket.socketpair()
        # What is written in a signal handler must not wait.
        told.setblocking(False)
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
            told.close()
            heard.close()
            return self
        listener = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        listener.start()
        self._stack = [
            lambda: signal.set_wakeup_fd(-1),
            told.close,
            listener.join,
            heard.close,
        ]
        return self

    def __exit__(self, *exception) -> None:
        self.obeyed()
        for step in self._stack:
            step()

    def obeyed(self) -> None:
        """Stops the clock: the run is about to save its state, or to end."""
        self._obeyed.set()

    def _listen(self, heard: socket.socket) -> None:
        asked, deadline = 0, None
        while True:
            left = deadline and max(deadline - time.monotonic(), LEAST_WAIT)
            heard.settimeout(left)
            try:
                # A byte a signal, its number; none once the context has ended.
                told = heard.recv(1)
            except TimeoutError:
                break
            if not told:
                return
            # Who presses Ctrl-C again does not want to wait.
            if asked and told[0] == signal.SIGINT:
                break
            if told[0] in ASKING and not asked:
                asked, deadline = told[0], time.monotonic() + self._seconds
        if not self._obeyed.is_set():
            self._end(asked)

    def _end_process(self, number: int) -> None:
        print(
            f"error: {signal.Signals(number).name} could not be obeyed in time "
            f"(--grace_seconds={self._seconds:g}), so the process ends unsaved; go on "
            "from the last checkpoint with --resume",
            file=sys.stderr,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        # What a shell reports of a program that the signal has ended.
        os._exit(128 + number)
