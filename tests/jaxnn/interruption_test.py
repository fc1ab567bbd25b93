"""A run that is stopped or killed again and again ends as one that never was."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from jaxnn import checkpoint
from jaxnn.experiment.files import artifacts

KILLS = 10
FLAGS = (
    "--flagfile=launch/experiments/breast_cancer.flags",
    "--noplots",
    "--precision=fp16",
    "--loss_scale_window=20",
    "--epochs=2000",
    "--checkpoint_every=20",
)


def start(workdir: pathlib.Path, *flags: str) -> subprocess.Popen:
    """A run, or its continuation if there is something to continue."""
    go_on = ["--resume"] if (workdir / artifacts.FLAGS).exists() else []
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jaxnn.train",
            *FLAGS,
            f"--workdir={workdir}",
            *go_on,
            *flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    said, _ = start(workdir).communicate()
    assert (workdir / artifacts.SUMMARY).exists(), said
    return workdir


def assert_same(one: pathlib.Path, other: pathlib.Path) -> None:
    for name in (artifacts.METRICS, artifacts.PARAMS):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def wait_for_more(workdir: pathlib.Path, done: int, running: subprocess.Popen) -> None:
    """Until a checkpoint beyond those is there or the run has ended."""
    while running.poll() is None and max([0, *checkpoint.steps(workdir)]) <= done:
        time.sleep(0.002)


def test_killed_at_random_moments(whole, tmp_path):
    """10 times, mostly while checkpoints are written; each time no more is lost than
    the epochs since the last one."""
    rng, workdir, kills = random.Random(0), tmp_path / "run", 0
    while kills < KILLS:
        done = max([0, *checkpoint.steps(workdir)])
        running = start(workdir)
        wait_for_more(workdir, done, running)
        time.sleep(rng.expovariate(1 / 0.03))
        running.kill()
        said, _ = running.communicate()
        assert running.returncode == -signal.SIGKILL, said
        assert max(checkpoint.steps(workdir)) > done
        kills += 1
    said, _ = start(workdir).communicate()
    assert (workdir / artifacts.SUMMARY).exists(), said
    assert_same(whole, workdir)


def test_sigterm_saves_and_says_how_to_go_on(whole, tmp_path):
    running = start(workdir := tmp_path / "run")
    wait_for_more(workdir, 0, running)
    running.terminate()
    said, _ = running.communicate()
    assert running.returncode == 0
    assert said.endswith(
        "stopped as asked; resume with python -m jaxnn.train "
        f"--flagfile={workdir / artifacts.FLAGS} --workdir={workdir} --resume\n"
    )
    assert not (workdir / artifacts.PARAMS).exists()
    assert max(checkpoint.steps(workdir)) == artifacts.read_metrics(workdir)["step"][-1]
    said, _ = start(workdir).communicate()
    assert "going on after epoch" in said
    assert_same(whole, workdir)
