import contextlib
import subprocess
import sys
import threading
import time

from jaxnn.liveness import Peers


@contextlib.contextmanager
def gathered(count: int):
    """Peers of all processes, played by threads, and the (observer, ended process)
    that they report."""
    seen: list[tuple[int, int]] = []

    def told(observer: int):
        return lambda process: seen.append((observer, process))

    members = [Peers(process, count, told(process)) for process in range(count)]
    meetings = [
        threading.Thread(target=member.connect, args=("localhost", members[0].port))
        for member in members
    ]
    for step in (threading.Thread.start, threading.Thread.join):
        for meeting in meetings:
            step(meeting)
    yield members, seen
    for member in members:
        close(member)


def close(peers: Peers) -> None:
    for connection in peers._connections:
        with contextlib.suppress(OSError):  # closed from the other side
            connection.shutdown(2)
        connection.close()


def is_seen(seen: list[tuple[int, int]], pair: tuple[int, int]) -> bool:
    until = time.monotonic() + 10
    while pair not in seen and time.monotonic() < until:
        time.sleep(0.01)
    return pair in seen


class TestPeers:
    def test_process_0_hears_of_any_other(self):
        with gathered(3) as (members, seen):
            close(members[2])
            assert is_seen(seen, (0, 2))
            assert (0, 1) not in seen

    def test_all_hear_of_process_0(self):
        with gathered(3) as (members, seen):
            close(members[0])
            assert is_seen(seen, (1, 0))
            assert is_seen(seen, (2, 0))

    def test_who_says_farewell_is_not_missed(self):
        with gathered(2) as (members, seen):
            for member in members:
                member.leave()
            for member in members:
                close(member)
            time.sleep(0.2)
            assert not seen

    def test_a_killed_process_is_noticed(self):
        seen: list[tuple[int, int]] = []
        peers = Peers(0, 2, lambda process: seen.append((0, process)))
        program = (
            "import os, jaxnn.liveness as c; m = c.Peers(1, 2, print); "
            f"m.connect('localhost', {peers.port}); os.kill(os.getpid(), 9)"
        )
        killed = subprocess.Popen([sys.executable, "-c", program])
        peers.connect("localhost", peers.port)
        assert is_seen(seen, (0, 1))
        assert killed.wait() == -9
        close(peers)
