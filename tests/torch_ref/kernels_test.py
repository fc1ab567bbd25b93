"""Tests of torch_ref/kernels.py; compilation is tested in train_test.py."""

import os
import sys

import pytest

from jaxnn.experiment.flags.config import Experiment
from torch_ref import kernels


class TestStageZero:
    @pytest.mark.parametrize(
        ("precision", "line"),
        [
            ("fp16", "pull request 8393"),
            ("bf16", "one update of zero gradients"),
            ("fp32", ""),
        ],
    )
    def test_says_what_deepspeed_does_there(self, precision, line):
        said = " ".join(
            kernels.notes(Experiment(zero_stage=0, precision=precision), "native", "")
        )
        assert line in said
        assert bool(said) == bool(line)
        assert not [
            *kernels.notes(Experiment(zero_stage=1, precision=precision), "native", "")
        ]


class TestLockOfACompilation:
    @pytest.fixture
    def op(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
        monkeypatch.setenv("PATH", os.environ["PATH"])
        folder = tmp_path / "fused_adam"
        folder.mkdir()
        (folder / "fused_adam.so").touch()
        (folder / "lock").touch()
        return folder

    @pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
    def test_of_a_killed_process_is_removed_at_once(self, op, monkeypatch, capsys):
        monkeypatch.setattr(kernels.time, "sleep", lambda seconds: pytest.fail("slept"))
        kernels.prepare_compilation(world_size=1)
        assert not (op / "lock").exists()
        assert capsys.readouterr().err == ""

    def test_of_a_living_one_is_told_and_waited_for(self, op, monkeypatch, capsys):
        slept = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                os.remove(op / "lock")

        monkeypatch.setattr(kernels.time, "sleep", sleep)
        with (op / "lock").open():
            kernels.prepare_compilation(world_size=1)
        assert len(slept) == 3
        assert capsys.readouterr().err == (
            "note: waiting for another process to compile DeepSpeed's fused_adam; if "
            f"none does, remove {op / 'lock'}\n"
        )

    def test_of_unknown_holders_goes_with_its_age(self, op, monkeypatch, capsys):
        monkeypatch.setattr(kernels.holders, "can_tell", lambda path: False)

        def sleep(seconds: float) -> None:
            os.utime(op / "lock", (0, 0))

        monkeypatch.setattr(kernels.time, "sleep", sleep)
        kernels.prepare_compilation(world_size=1)
        assert not (op / "lock").exists()
        assert capsys.readouterr().err.count("\n") == 1
