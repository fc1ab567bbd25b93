import os
import subprocess
import sys

import pytest

from torch_ref.holders import left_behind

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="looks for processes in /proc"
)

HOLD = """
import os, sys
os.chdir(sys.argv[1])
file = os.open(sys.argv[2], os.O_RDWR)
os.write(1, b"x")
os.read(0, 1)
"""


@pytest.fixture
def places(tmp_path):
    """A folder that a process is in, a file that it has open, and one of each that
    nobody holds."""
    folder, file = tmp_path / "folder", tmp_path / "file"
    others = [tmp_path / "another folder", tmp_path / "another file"]
    for path in (folder, others[0]):
        path.mkdir()
    for path in (file, others[1]):
        path.touch()
    return [folder, file], others


def holding(held) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", HOLD, *map(str, held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.read(1) == b"x"
    return process


def test_what_a_process_holds_is_left_behind_when_it_is_killed(places):
    held, others = places
    with holding(held) as process:
        assert left_behind([*held, *others]) == set(others)
        process.kill()
    assert left_behind([*held, *others]) == {*held, *others}


def test_what_is_gone_is_not_there_to_be_removed(tmp_path):
    assert left_behind([tmp_path / "gone"]) == set()


def test_another_users_stay(places, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: -1)
    assert left_behind(places[1]) == set()


def test_what_other_hosts_may_hold_stays(places, monkeypatch):
    monkeypatch.setattr("torch_ref.holders._file_system", lambda path: "nfs4")
    assert left_behind(places[1]) == set()


def test_without_proc_all_count_as_held(places, monkeypatch, tmp_path):
    monkeypatch.setattr("torch_ref.holders.PROCESSES", tmp_path)
    assert left_behind(places[1]) == set()
