"""Tests of parity/own/__main__.py: the command, its exit codes and its lines."""

import pathlib
import shutil

import pytest

from tests.parity.own import recorded

PORT = """
import optax
from tests.parity.own.ports.mlp_function import convert, loss, model
optimizer = optax.adamw({rate}, weight_decay={decay})
"""


@pytest.fixture
def judge(run, mlp_trace, tmp_path, monkeypatch):
    """judge(port): runs the command on a trace and the text of a port.py."""
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path.cwd()))
    trace = shutil.copytree(mlp_trace._folder, tmp_path / "t")

    def start(port, *flags, folder=trace):
        (tmp_path / "port.py").write_text(port)
        return run("parity.own", folder, tmp_path / "port.py", *flags)

    return start


def port(rate=recorded.RATE):
    return PORT.format(rate=rate, decay=recorded.DECAY)


class TestCommand:
    def test_parity(self, judge):
        done = judge(port())
        assert done.returncode == 0, done.stderr
        assert "torch: parity, worst z" in done.stdout

    def test_divergence(self, judge):
        done = judge(port(rate=2 * recorded.RATE))
        assert done.returncode == 1, done.stderr
        assert "torch: DIVERGENCE, first at step 0" in done.stdout
        assert "updated parameters" in done.stdout

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("import sys; sys.exit(0)", "port.py: it raised SystemExit: 0"),
            ("from tests.parity.own.ports.mlp_function import *\nloss = None", "none;"),
        ],
    )
    def test_could_not_judge(self, judge, text, message):
        done = judge(text)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr

    def test_no_trace(self, judge, tmp_path):
        done = judge(port(), folder=tmp_path / "none")
        assert done.returncode == 2
        assert "no readable trace there" in done.stderr.splitlines()[-1]

    def test_names_are_missing(self, run):
        done = run("parity.own", "runs/mine")
        assert done.returncode == 2
        assert "two names are needed, TRACE and port.py, not 1" in done.stderr
