"""No port is given twice, and one that is taken is seen."""

import socket
import subprocess
import sys
import tempfile

import pytest

from jaxnn.experiment import ports

PROCESSES, EACH = 8, 12
DRAW = """
import sys, tempfile
from jaxnn.experiment import ports
tempfile.tempdir, ports.FOLDER = sys.argv[1].rsplit("/", 1)
ports.BELOW = ports.LEAST + int(sys.argv[2])
print(*[ports.free_port() for _ in range(int(sys.argv[3]))], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ports, "FOLDER", "ports")
    return tmp_path / "ports"


def drawing(folder, among: int, count: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", DRAW, folder, str(among), str(count)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


class TestFreePort:
    def test_many_processes_get_different_ones(self, folder):
        """Of twice as many, of which most would be drawn by several."""
        drawers = [
            drawing(folder, 2 * PROCESSES * EACH, EACH) for _ in range(PROCESSES)
        ]
        drawn = [
            int(port)
            for drawer in drawers
            if drawer.stdout
            for port in drawer.stdout.readline().split()
        ]
        for drawer in drawers:
            drawer.communicate()
        assert len(drawn) == PROCESSES * EACH == len(set(drawn))

    def test_one_of_a_process_that_has_ended_is_not_given_at_once(
        self, folder, monkeypatch
    ):
        monkeypatch.setattr(ports, "BELOW", ports.LEAST + 8)
        drawn = [drawing(folder, 8, 1).communicate()[0] for _ in range(2)]
        assert len({*drawn, f"{ports.free_port()}\n"}) == 3

    def test_after_a_while_it_is(self, monkeypatch):
        monkeypatch.setattr(ports, "RESERVED_SECONDS", 0)
        port = ports.free_port()
        assert not ports._reserve(port)
        ports.os.close(ports._reserved.pop())
        assert ports._reserve(port)

    def test_without_a_folder_it_is_free_all_the_same(self, folder):
        folder.write_text("a file")
        assert not ports.is_taken(ports.free_port())


class TestIsTaken:
    @pytest.mark.parametrize("host", ["127.0.0.1", ""])
    def test_by_a_listener(self, host):
        with socket.create_server((host, 0)) as server:
            assert ports.is_taken(server.getsockname()[1])

    def test_by_nobody(self):
        assert not ports.is_taken(ports.free_port())
