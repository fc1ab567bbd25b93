"""Tests of parity/speed/clocked.py, in processes as `measuring` starts it."""

import json
import subprocess
import sys

from parity.speed import clocked


def clock(folder, code: str, seconds: float = 60) -> tuple[int, dict]:
    """Exit code and report of a Python program."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-IS", clocked.__file__, report, str(seconds)]
        + [sys.executable, "-IS", "-c", code]
    )
    return done.returncode, json.loads(report.read_text())


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


def test_ends_what_takes_too_long(tmp_path):
    code, report = clock(tmp_path, "import time; time.sleep(600)", seconds=0.5)
    assert code == clocked.TOO_LONG
    assert report["wall"] < 300
