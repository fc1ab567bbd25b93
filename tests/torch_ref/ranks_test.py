"""What a rank does before it joins; the joining is tested in train_test.py."""

import os
import sys

import pytest

from torch_ref import ranks


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_buffers_of_killed_ranks_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "SHARED_MEMORY", tmp_path)
    mine = f"deepspeed_allreduce_buffer_{os.getuid()}_127.0.0.1"
    dead = [tmp_path / f"{mine}_15439_{rank}" for rank in range(2)]
    live = tmp_path / f"{mine}_15440_0"
    other = tmp_path / "another_program"
    for path in (*dead, live, other):
        path.touch()
    with live.open("rb"):
        ranks.sweep_shared_memory()
    assert {*tmp_path.iterdir()} == {live, other}
