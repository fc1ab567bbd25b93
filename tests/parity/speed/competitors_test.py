"""Tests of parity/speed/competitors.py."""

import importlib.util
import pathlib

import pytest

from jaxnn.experiment.flags.config import Experiment
from parity.speed.competitors import NAMES, chosen, full_command

ONE = Experiment(num_devices=1)


def test_best_is_several():
    best = chosen(ONE, ["best"])
    labels = [competitor.label for competitor in best]
    assert {"eager, 1 thread", "compiled, 1 thread"} <= set(labels)
    assert all(competitor.kind == "best" for competitor in best)


def test_labels_and_folders_differ():
    everyone = chosen(ONE, NAMES)
    assert len({each.label for each in everyone}) == len(everyone)
    assert len({each.folder for each in everyone}) == len(everyone)


@pytest.mark.parametrize("kind", NAMES)
def test_programs_exist(kind):
    for competitor in chosen(ONE, [kind]):
        module = competitor.command[competitor.command.index("-m") + 1]
        assert importlib.util.find_spec(module)


def test_all_read_one_flagfile():
    flagfile, workdir = pathlib.Path("a.flags"), pathlib.Path("run")
    for competitor in chosen(ONE, NAMES):
        command = full_command(competitor, flagfile, workdir)
        assert command[-3:] == ["--flagfile=a.flags", "--workdir=run", "--noplots"]


def test_virtual_devices():
    jax, torch = chosen(ONE.replace(num_devices=2), ["jaxnn", "deepspeed"])
    assert "device_count=2" in jax.environment["XLA_FLAGS"]
    assert "--num_accelerators=2" in torch.command
