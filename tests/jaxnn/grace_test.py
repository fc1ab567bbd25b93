"""A signal to stop ends a call of XLA that would never return."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxnn.grace import Limit

ENDLESS = """
import pathlib

import flax.linen as nn
import jax
from jax import lax


class Endless(nn.Module):
    num_outputs: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.num_outputs)(x)
        if self.is_initializing():
            return x
        pathlib.Path({traced!r}).touch()
        zero = lax.stop_gradient(x).sum() * 0
        return x + lax.while_loop(lambda y: y < 1, lambda y: y * 0, zero)
"""
"""A network whose first epoch does not end."""


@pytest.fixture
def handled():
    """Python's own handlers, as of a run, which are put back."""
    before = [
        (number, signal.signal(number, lambda number, frame: None))
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_not_obeyed_ends_the_process(handled, number):
    ended, told = threading.Event(), []

    def end(number: int) -> None:
        told.append(number)
        ended.set()

    with Limit(0, end):
        os.kill(os.getpid(), number)
        assert ended.wait(60)
    assert told == [number]


def test_a_second_ctrl_c_ends_it_at_once(handled):
    ended = threading.Event()
    with Limit(1000, lambda number: ended.set()):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not ended.wait(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        assert ended.wait(60)


def test_one_that_is_obeyed_does_not(handled):
    told = []
    with Limit(0, told.append) as limit:
        limit.obeyed()
        os.kill(os.getpid(), signal.SIGTERM)
    assert told == []


def test_the_end_of_the_run_stops_the_clock(handled):
    told = []
    with Limit(1000, told.append):
        os.kill(os.getpid(), signal.SIGTERM)
    assert told == []


def test_other_signals_ask_for_nothing():
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    told = []
    with Limit(0, told.append):
        os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert told == []


def test_what_listens_already_stays():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    with Limit(0):
        assert signal.set_wakeup_fd(writing) == writing
    assert signal.set_wakeup_fd(before) == writing
    os.close(reading)
    os.close(writing)


def test_in_another_thread_it_does_nothing():
    failed = []

    def enter() -> None:
        try:
            with Limit(0):
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_an_epoch_that_does_not_end(tmp_path, number):
    net, traced = tmp_path / "net.py", tmp_path / "traced"
    net.write_text(ENDLESS.format(traced=str(traced)))
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "jaxnn.train", "--noplots"),
            f"--model={net}:Endless",
            f"--workdir={tmp_path / 'run'}",
            "--grace_seconds=0.1",
            # Else it is traced once more before, to choose the number of devices.
            "--num_devices=1",
        ],
        text=True,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(traced, running)
        running.send_signal(number)
        _, said = running.communicate(timeout=100)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode in (128 + number, 130)
    assert said in (
        f"error: {number.name} could not be obeyed in time (--grace_seconds=0.1), so "
        "the process ends unsaved; go on from the last checkpoint with --resume\n",
        # Ctrl-C while the network was still traced.
        "interrupted\n",
    )


def wait_for(path: pathlib.Path, running: subprocess.Popen) -> None:
    while not path.exists() and running.poll() is None:
        time.sleep(0.02)
    assert running.poll() is None
