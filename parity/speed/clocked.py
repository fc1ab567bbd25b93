"""Runs one command and writes how long it took and how much memory it held.

    python -IS parity/speed/clocked.py REPORT SECONDS COMMAND...

A program of its own that imports next to nothing: a process counts its parent's memory
as its own until it has started (Linux, `ru_maxrss` over exec), so that a large parent
would hide what a small child holds. Ends with the command's exit code, or 124 if the
command was ended after so many seconds.
"""

import json
import os
import signal
import subprocess
import sys
import time

TOO_LONG = 124
"""Exit code, as of coreutils' timeout."""


def main(report: str, seconds: float, command: list[str]) -> int:
    """Runs the command; returns the exit code."""
    start = time.perf_counter()
    # A session of its own, with which all that it starts can be ended.
    child = subprocess.Popen(command, start_new_session=True)

    def stop(number: int, frame: object) -> None:
        del frame
        stopped.append(number)
        kill_session(child.pid)

    stopped: list[int] = []
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _, status, usage = os.wait4(child.pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    with open(report, "w") as file:
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        wall = time.perf_counter() - start
        json.dump({"wall": wall, "memory": usage.ru_maxrss * unit}, file)
    code = os.waitstatus_to_exitcode(status)
    return TOO_LONG if signal.SIGALRM in stopped else abs(code)


def kill_session(session: int) -> None:
    """Kills every process of a session; without /proc, its first group."""
    os.killpg(session, signal.SIGKILL)
    # A compilation's processes are in groups of their own.
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            if entry.isdigit() and os.getsid(int(entry)) == session:
                os.kill(int(entry), signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
