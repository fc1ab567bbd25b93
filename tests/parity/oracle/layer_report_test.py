"""Tests of parity/oracle/layer_report.py."""

import re

import numpy as np
import pytest

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from parity.oracle import layer_report


def lines_of(*flags):
    name = "launch/experiments/mlp_xor.flags"
    experiment, _ = command_line.parse(["oracle", f"--flagfile={name}", *flags], "fp64")
    return list(layer_report.lines(experiment, load_dataset(experiment)))


def test_says_each_gradient_of_each_layer():
    lines = lines_of()
    assert lines[0].startswith("first batch: 4 samples, loss 0.7")
    assert [line for line in lines if line and not line.startswith(" ")][1:] == [
        "output",
        "hidden_0",
    ]
    headed = [line.split(", norm")[0] for line in lines if ", norm" in line]
    assert headed == [
        "  delta = dC/dz [units, samples]: 1 x 4",
        "  dC/dW [inputs, units]: 8 x 1",
        "  dC/db [units]: 1",
        "  dC/dX [inputs, samples]: 8 x 4",
        "  delta = dC/dz [units, samples]: 8 x 4",
        "  dC/dW [inputs, units]: 2 x 8",
        "  dC/db [units]: 8",
        "  dC/dX [inputs, samples]: 2 x 4",
    ]


def test_lies_on_the_tape():
    found = [re.search(r"from the tape: (\S+)", line) for line in lines_of()]
    distances = [float(match[1]) for match in found if match]
    assert len(distances) == 2
    # Sums of at most 8 products.
    assert max(distances) < 16 * np.finfo(float).eps


def test_without_biases():
    assert not [line for line in lines_of("--nouse_bias") if "dC/db" in line]


def test_distance():
    assert layer_report.distance(np.array([1.0, 2.5]), np.array([1.0, 2.0])) == 0.25
    assert layer_report.distance(np.zeros(2), np.zeros(2)) == 0


def test_residual_connections_have_no_equation():
    with pytest.raises(UserError, match="--residual"):
        lines_of("--residual", "--hidden_sizes=4,4")
