"""Tests of parity/speed/operations.py."""

import subprocess
import sys

import pytest

from parity.speed import operations
from parity.speed.operations import OTHER, Event

PRODUCTS, WAITING, COPIES, STARTING = operations.KINDS


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dot.12", PRODUCTS),
        ("ynn_fusion.3", PRODUCTS),
        ("dot_general.76", PRODUCTS),
        ("convolution.5", PRODUCTS),
        ("psum.31", WAITING),
        ("all-reduce.1", WAITING),
        ("Rendezvous", WAITING),
        ("Wait: pending_threads=1/2", WAITING),
        ("transpose_copy_fusion.2", COPIES),
        ("copy.137", COPIES),
        ("bitcast_dynamic-update-slice_fusion.6", COPIES),
        ("while.170", STARTING),
        ("ThunkExecutor::Execute", STARTING),
        ("add_divide_fusion", OTHER),
        ("slice_tanh_fusion", OTHER),
        ("wrapped_tanh", OTHER),
    ],
)
def test_kinds(name, kind):
    assert operations.kind_of(name) == kind


def test_own_times_are_without_what_lies_within():
    events = [
        Event("while", 0, 100),
        Event("dot.1", 10, 30),
        Event("dot.2", 50, 20),
        Event("copy", 55, 5),
        Event("add", 200, 7),
    ]
    assert dict(operations.own_times(events)) == {
        "while": 50,
        "dot.1": 30,
        "dot.2": 15,
        "copy": 5,
        "add": 7,
    }


def test_shares_by_hand():
    """Two cores in 100 ns; a third thread that helped for 5."""
    first = [Event("while", 0, 100), Event("dot", 0, 60)]
    second = [Event("psum", 40, 20), Event("dot", 60, 40)]
    found = operations.shares([first, second, [Event("add", 10, 5)]])
    assert found.threads == 2
    assert found.seconds == pytest.approx(100e-9)
    assert found.kinds == {
        STARTING: 40 / 200,
        PRODUCTS: 100 / 200,
        WAITING: 20 / 200,
        OTHER: 5 / 200,
    }


def test_overlaps_and_gaps_count_once():
    events = [Event("a", 0, 10), Event("b", 5, 10), Event("c", 6, 2), Event("d", 20, 5)]
    assert operations.covered(events) == 20


def test_the_command_prints_shares(tmp_path):
    command = [sys.executable, "-m", "parity.speed.operations", "--name=linear"]
    flags = ["--dataset=linear", "--num_samples=320", "--epochs=2", "--batch_size=32"]
    done = subprocess.run(
        [*command, *flags], capture_output=True, text=True, check=True
    )
    assert "arithmetic by entry" in done.stdout
