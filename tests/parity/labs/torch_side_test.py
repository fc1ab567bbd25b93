"""Programs of the torch side: what they print, and how they fail."""

import importlib.util

import pytest

from jaxnn.experiment.errors import UserError
from parity.labs import torch_side


def test_missing_packages_are_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^half: needs torch and deepspeed, .*setup"):
        torch_side.require("half")


def test_nothing_is_said_where_they_are():
    torch_side.require("half")


def test_output_is_returned():
    assert "usage" in torch_side.run("json.tool", "--help")


def test_a_failure_shows_its_last_lines():
    with pytest.raises(RuntimeError, match=r"(?s)json.tool failed:.*No such file"):
        torch_side.run("json.tool", "no such file")
