"""Runs command lines side by side until all have ended.

    python3 launch/supervise.py [--ssh | --until_eof] COMMAND_LINE...

INT, TERM and HUP are passed on to all of them. When one fails the others get TERM; what
is left JAXNN_GRACE seconds (30) after either gets KILL. The exit code is the first
failure's. Nothing outlives this program, even where it is killed itself.

--ssh: the lines are ssh's, which a signal would cut off; the end of their stdin stops
the remote side instead. --until_eof: the end of stdin counts as TERM, which is what the
other end of such an ssh runs.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERVAL = 0.1
"""Seconds between looks at the processes."""


class Guardian:
    """A process that kills the groups it was told of once this one has ended.

    It notices by the end of a pipe, so a KILL of this process is noticed too.
    """

    def __init__(self):
        reading, self._writing = os.pipe()
        if os.fork() == 0:
            ignore_signals()
            os.close(self._writing)
            with os.fdopen(reading) as pipe:
                groups = [int(line) for line in pipe]
            for group in groups:
                send(group, signal.SIGKILL)
            os._exit(0)
        os.close(reading)

    def watch(self, group: int) -> None:
        """Adds a process group to those that end with this process."""
        os.write(self._writing, f"{group}\n".encode())


class Supervisor:
    """The running command lines.

    Args:
      lines: command lines, each run by a shell in a process group of its own, so that
        what a command starts ends with it.
      over_ssh: the commands are ssh's and must not see a signal.
      grace: seconds between a signal to stop and KILL.
    """

    def __init__(self, lines: Sequence[str], over_ssh: bool, grace: float):
        self._guardian = Guardian()
        self._grace = grace
        self._deadline: float | None = None
        self._stopping: int | None = None
        self._processes: list[subprocess.Popen] = []
        # The stdin of all commands, open until they are to stop.
        stdin, self._stdin_end = os.pipe()
        for line in lines:
            self._start(line, stdin, over_ssh)
        os.close(stdin)

    def _start(self, line: str, stdin: int, over_ssh: bool) -> None:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            stdin=stdin,
            process_group=0,
            preexec_fn=ignore_signals if over_ssh else heed_signals,
        )
        self._guardian.watch(process.pid)
        self._processes.append(process)
        # A signal may have come while the others were started.
        if self._stopping is not None:
            send(process.pid, self._stopping)

    def stop(self, number: int) -> None:
        """Passes a signal on to all groups, and sets the time of the KILL."""
        self._stopping = number
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace
            os.close(self._stdin_end)
        self._send_all(number)

    def wait(self) -> int:
        """Waits until all have ended; returns the exit code of the first failure."""
        status = 0
        left = dict(enumerate(self._processes))
        while left:
            time.sleep(INTERVAL)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._send_all(signal.SIGKILL)
            for number, process in list(left.items()):
                if process.poll() is None:
                    continue
                del left[number]
                if process.returncode and not status:
                    status = exit_code(process.returncode)
                    self._stop_the_others(number, status)
        return status

    def _stop_the_others(self, number: int, status: int) -> None:
        if self._deadline is not None:
            return
        if len(self._processes) > 1:
            print(
                f"supervise: process {number} ended with exit code {status}; stopping "
                "the others",
                file=sys.stderr,
                flush=True,
            )
        self.stop(signal.SIGTERM)

    def kill(self) -> None:
        """Kills what the commands have started and left behind."""
        self._send_all(signal.SIGKILL)

    def _send_all(self, number: int) -> None:
        for process in self._processes:
            send(process.pid, number)


def send(group: int, number: int) -> None:
    """Sends a signal to a process group, if it still exists."""
    # macOS reports a zombie by the second.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def ignore_signals() -> None:
    """Makes this process deaf to the signals that stop a run."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def heed_signals() -> None:
    """Unblocks the signals that stop a run, which `main` blocks for a while."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def exit_code(returncode: int) -> int:
    """Returns the exit code as a shell reports it: 128 + n for a death by signal n."""
    return 128 - returncode if returncode < 0 else returncode


def terminate_at_eof() -> None:
    """Sends TERM to this process when its stdin ends."""
    # Not through sys.stdin: the interpreter would wait for its lock on the way out.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Runs the command lines; returns the exit code."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    mode = arguments.pop(0) if arguments[:1] in (["--ssh"], ["--until_eof"]) else ""
    grace = float(os.environ.get("JAXNN_GRACE", "30"))
    # Until the commands run, a signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    supervisor = Supervisor(arguments, mode == "--ssh", grace)
    for number in STOPPING:
        signal.signal(number, lambda number, frame: supervisor.stop(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    if mode == "--until_eof":
        threading.Thread(target=terminate_at_eof, daemon=True).start()
    try:
        return supervisor.wait()
    finally:
        supervisor.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
