"""Tests of parity/speed/clocked.py, in processes as `measuring` starts it."""

import json
import pathlib
import subprocess
import sys
import time

from parity.speed import clocked


def clock(folder, code: str, seconds: float = 60) -> tuple[int, dict]:
    """Exit code and report of a Python program."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-IS", clocked.__file__, report, str(seconds)]
        + [sys.executable, "-IS", "-c", code]
    )
    return done.returncode, json.loads(report.read_text())


def state(pid: int) -> str:
    """State of a process, Z if only its parent knows it still; "" without it."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def test_reports_time_and_memory(tmp_path):
    code, report = clock(
        tmp_path, "import time; x = b'x' * 200 * 2**20; time.sleep(0.2)"
    )
    assert code == 0
    assert report["wall"] >= 0.2
    assert 200 * 2**20 < report["memory"] < 400 * 2**20


def test_does_not_count_the_parents_memory(tmp_path):
    """This process holds JAX and torch, many times what the child holds."""
    _, report = clock(tmp_path, "pass")
    assert report["memory"] < 40 * 2**20


def test_passes_the_exit_code_on(tmp_path):
    assert clock(tmp_path, "import sys; sys.exit(7)")[0] == 7


def test_ends_what_it_has_started_too(tmp_path):
    """A child in a group of its own, as a build has them."""
    sleeper = "import os, time; os.setpgid(0, 0); print(os.getpid(), flush=True)"
    code = (
        "import subprocess, sys\n"
        f"child = [sys.executable, '-c', '{sleeper}; time.sleep(600)']\n"
        f"subprocess.run(child, stdout=open('{tmp_path}/pid', 'w'))"
    )
    assert clock(tmp_path, code, seconds=3)[0] == clocked.TOO_LONG
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 60
    while state(pid) not in ("", "Z") and time.monotonic() < end:
        time.sleep(0.05)
    assert state(pid) in ("", "Z")


def test_ends_what_takes_too_long(tmp_path):
    code, report = clock(tmp_path, "import time; time.sleep(600)", seconds=0.5)
    assert code == clocked.TOO_LONG
    assert report["wall"] < 300
