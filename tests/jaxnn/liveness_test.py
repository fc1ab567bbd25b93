import contextlib
import socket
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

from jaxnn.liveness import BEAT, ENDED_WELL, Peers


@contextlib.contextmanager
def gathered(count: int):
    """Peers of all processes, played by threads, and the (observer, ended process)
    that they report."""
    seen: list[tuple[int, int]] = []

    def told(observer: int):
        return lambda process, is_silent: seen.append((observer, process))

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


def is_seen(seen: list, pair: tuple[int, int]) -> bool:
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
        peers = Peers(0, 2, lambda process, is_silent: seen.append((0, process)))
        program = (
            "import os, jaxnn.liveness as c; m = c.Peers(1, 2, print); "
            f"m.connect('localhost', {peers.port}); os.kill(os.getpid(), 9)"
        )
        killed = subprocess.Popen([sys.executable, "-c", program])
        peers.connect("localhost", peers.port)
        assert is_seen(seen, (0, 1))
        assert killed.wait() == -9
        close(peers)

    def test_a_stopped_process_is_noticed(self):
        """And told from one that has ended."""
        seen: list[tuple[int, bool]] = []
        peers = Peers(0, 2, lambda *told: seen.append(told), silence=0.02)
        program = (
            "import os, jaxnn.liveness as c; m = c.Peers(1, 2, print); "
            f"m.connect('localhost', {peers.port}); os.kill(os.getpid(), 19)"
        )
        stopped = subprocess.Popen([sys.executable, "-c", program])
        peers.connect("localhost", peers.port)
        assert is_seen(seen, (1, True))
        stopped.kill()
        stopped.wait()
        close(peers)

    def test_who_leaves_last_says_farewell_to_nobody(self):
        """The reset of a connection, whose other end closed it with signs unread, is no
        fault."""
        peers = Peers(1, 2, lambda *told: None)
        peers._connections = [mock.Mock(), mock.Mock()]
        first, second = peers._connections
        first.sendall.side_effect = ConnectionResetError()
        peers.leave()
        second.sendall.assert_called_once_with(ENDED_WELL)

    def test_signs_of_life_are_sent(self):
        server = Peers(0, 2, lambda *told: None, beat=0.001)
        meeting = threading.Thread(target=server.connect, args=("localhost", 0))
        meeting.start()
        with socket.create_connection(("localhost", server.port)) as other:
            other.sendall((1).to_bytes(4, "big"))
            meeting.join()
            assert [other.recv(1), other.recv(1)] == [BEAT, BEAT]
            other.sendall(ENDED_WELL)
        server.leave()
        close(server)

    @pytest.mark.parametrize(
        ("heard", "told"),
        [
            ([BEAT, TimeoutError(), BEAT, TimeoutError(), ENDED_WELL], []),
            ([BEAT, TimeoutError(), TimeoutError()], [(1, True)]),
            ([TimeoutError(), b""], [(1, False)]),
            ([BEAT, ConnectionResetError()], [(1, False)]),
        ],
    )
    def test_what_is_heard_of_a_process(self, heard, told):
        seen: list[tuple[int, bool]] = []
        peers = Peers(1, 2, lambda *told: seen.append(told))
        connection = mock.Mock()
        connection.recv.side_effect = heard
        peers._listen(connection, 1)
        assert seen == told
