"""Tests of the door to the recorder, parity/own/record.py."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader
from parity import own
from torch_ref import kernels


class TestImport:
    def test_neither_jax_nor_torch_comes_with_it(self):
        program = (
            "import sys; from parity import own; "
            "own.record, own.RecordCallback, own.prepare_deepspeed; "
            "sys.exit(bool({'jax', 'torch'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", program]).returncode == 0

    def test_the_judge_comes_when_called(self, tmp_path):
        with pytest.raises(UserError, match="no readable trace there"):
            own.judge(tmp_path / "none", model=None)


class TestRecord:
    @pytest.mark.parametrize("limit", [None, 4])
    def test_writes_a_trace(self, tmp_path, limit):
        net = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        folder = str(tmp_path / "t")
        with own.record(net, folder, steps=1, optimizer=optimizer, limit=limit):
            net(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        names = Reader(tmp_path / "t").read(0)
        assert ("passes/0/digests/input" in names) == (limit is not None)
        assert ("passes/0/inputs/input" in names) == (limit is None)


class TestPrepareDeepspeed:
    def test_prepares_for_the_launchers_ranks(self, monkeypatch):
        asked = []
        monkeypatch.setattr(kernels, "prepare_compilation", asked.append)
        monkeypatch.setenv("WORLD_SIZE", "4")
        own.prepare_deepspeed()
        monkeypatch.delenv("WORLD_SIZE")
        own.prepare_deepspeed()
        assert asked == [4, 1]
