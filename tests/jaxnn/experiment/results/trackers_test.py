"""Tests of jaxnn/experiment/results/trackers.py: what is written is read back."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import trackers

LOSSES = (0.5, 0.25)


def track(experiment, workdir):
    """A run of two epochs and a plot."""
    tracked = trackers.Trackers(experiment, workdir)
    for number, loss in enumerate(LOSSES, 1):
        tracked.epoch(number, {"epoch": number, "test_loss": loss})
    (workdir / "plots").mkdir(exist_ok=True)
    Figure(figsize=(1, 1)).savefig(workdir / "plots" / "curve.png")
    tracked.images(2)
    tracked.close(0)


class TestTensorBoard:
    def test_event_files_hold_numbers_and_plots(self, tmp_path):
        pytest.importorskip("tensorboardX")
        from tensorboardX.proto.event_pb2 import Event

        track(Experiment(tensorboard=True), tmp_path)
        [path] = (tmp_path / trackers.FOLDER).glob("events*")
        values = [
            (event.step, value)
            for event in map(Event.FromString, records(path.read_bytes()))
            for value in event.summary.value
        ]
        losses = [(n, v.simple_value) for n, v in values if v.tag == "test_loss"]
        assert losses == [(1, 0.5), (2, 0.25)]
        [image] = [v.image for _, v in values if v.tag == "curve"]
        assert image.encoded_image_string.startswith(b"\x89PNG")


def records(data: bytes):
    """The records of a TFRecord file: length, checksum, bytes, checksum."""
    place = 0
    while place < len(data):
        length = int(np.frombuffer(data[place : place + 8], np.uint64)[0])
        yield data[place + 12 : place + 12 + length]
        place += length + 16


class Stub(types.ModuleType):
    """A package wandb that notes what it is told."""

    def __init__(self, key):
        super().__init__("wandb")
        self.api = types.SimpleNamespace(api_key=key)
        self.logged, self.mode, self.status = [], "", None
        self.Settings = lambda **options: options
        self.Image = lambda path: ("image", path)

    def init(self, mode, **options):
        self.mode, self.options = mode, options
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.status = exit_code


class TestWandB:
    @pytest.mark.parametrize(("key", "mode"), [("k", "online"), (None, "offline")])
    def test_online_with_a_key_alone(self, tmp_path, monkeypatch, capsys, key, mode):
        stub = Stub(key)
        monkeypatch.setitem(sys.modules, "wandb", stub)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        track(Experiment(wandb=True), tmp_path)
        assert stub.mode == mode
        assert stub.options["config"]["wandb"] is True
        assert [(n, v.get("test_loss")) for n, v in stub.logged[:2]] == [
            (1, 0.5),
            (2, 0.25),
        ]
        assert stub.logged[2] == (
            2,
            {"curve": ("image", str(tmp_path / "plots" / "curve.png"))},
        )
        assert stub.status == 0
        assert ("no key" in capsys.readouterr().out) == (mode == "offline")

    def test_offline_files_hold_the_run(self, tmp_path):
        pytest.importorskip("wandb")
        # Its service may write until the process ends.
        code = (
            "import pathlib; from tests.jaxnn.experiment.results import trackers_test;"
            "from jaxnn.experiment.flags.config import Experiment;"
            f"trackers_test.track(Experiment(wandb=True), pathlib.Path('{tmp_path}'))"
        )
        offline = {**os.environ, "WANDB_MODE": "offline"}
        subprocess.run([sys.executable, "-c", code], check=True, env=offline)
        [path] = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
        assert b"test_loss" in path.read_bytes()


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_an_absent_package_is_one_line(tmp_path, monkeypatch, capsys, name):
    package = {"tensorboard": "tensorboardX"}.get(name, name)
    # Python's way to make an import fail.
    monkeypatch.setitem(sys.modules, package, None)
    track(Experiment(**{name: True}), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"note: --{name}: ")
    assert lines[0].endswith("training goes on")


def test_a_process_that_does_not_write_tracks_nothing(capsys):
    trackers.Trackers(Experiment(tensorboard=True, wandb=True), None).epoch(1, {})
    assert not capsys.readouterr().out
