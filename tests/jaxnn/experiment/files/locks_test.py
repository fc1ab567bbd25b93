"""Tests of jaxnn/experiment/files/locks.py."""

import os
import subprocess
import sys

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, locks
from jaxnn.experiment.flags.config import Experiment

HOLDER = """
import pathlib, sys
from jaxnn.experiment.files import locks
locks.hold(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


class TestMayBeHeld:
    def test_while_another_process_holds_it(self, tmp_path, holder):
        assert locks.may_be_held(tmp_path)
        holder.kill()
        holder.wait()
        assert not locks.may_be_held(tmp_path)
        assert not os.listdir(tmp_path)

    def test_by_this_process(self, tmp_path):
        with locks.released():
            locks.hold(tmp_path)
            assert locks.may_be_held(tmp_path)

    def test_where_no_folder_can_be_locked(self, tmp_path, monkeypatch):
        def refuse(file, kind):
            raise OSError("no locks available")

        monkeypatch.setattr(locks.fcntl, "flock", refuse)
        locks.hold(tmp_path)
        assert locks.may_be_held(tmp_path)


class TestHold:
    def test_names_the_process_that_has_it(self, tmp_path, holder):
        with pytest.raises(UserError, match=rf"in use by process {holder.pid};"):
            locks.hold(tmp_path)

    def test_of_a_process_that_was_killed_nothing_is_left(self, tmp_path, holder):
        holder.kill()
        holder.wait()
        with locks.released():
            locks.hold(tmp_path)
        assert not os.listdir(tmp_path)

    def test_a_folder_that_cannot_be_opened_is_not_passed_over(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            locks.hold(tmp_path / "missing")

    def test_twice_by_one_process(self, tmp_path):
        with locks.released():
            locks.hold(tmp_path)
            locks.hold(tmp_path / ".." / tmp_path.name)


class TestReleased:
    def test_others_may_have_it_afterwards(self, tmp_path):
        with locks.released():
            locks.hold(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", HOLDER, str(tmp_path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        assert done.returncode == 0


class TestWorkdir:
    @pytest.mark.parametrize("how", ["overwrite", "resume"])
    def test_a_running_run_is_left_alone(self, tmp_path, holder, how):
        experiment = Experiment(workdir=str(tmp_path), precision="fp32")
        (tmp_path / artifacts.FLAGS).write_text("--epochs=3\n")
        with pytest.raises(UserError, match=f"in use by process {holder.pid};"):
            artifacts.create_workdir(experiment.replace(**{how: True}), "jax")
        assert (tmp_path / artifacts.FLAGS).read_text() == "--epochs=3\n"
