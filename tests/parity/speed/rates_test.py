"""Tests of parity/speed/rates.py."""

import importlib.util

from jaxnn.experiment.flags.config import Experiment
from parity.speed import goals, rates
from parity.speed.competitors import JAXNN
from tests.parity.speed.results import failed, result

RESULTS = [
    result(JAXNN, "jaxnn.sweep", [0.5]),
    result(goals.BATCHED, "vmap, 1 thread", [2.0]),
    result(goals.BATCHED, "vmap, 2 threads", [1.5]),
    failed(goals.BATCHED, "compiled, 1 thread", "no compiler"),
    result(goals.SEQUENTIAL, "sequential, 1 thread", [8.0]),
]


def test_spread_is_even_over_three_decades():
    assert rates.spread(4) == ["0.0001", "0.001", "0.01", "0.1"]
    assert len(set(rates.spread(16))) == 16


def test_programs_exist():
    for competitor in rates.competitors(Experiment(num_devices=1), ["0.1"]):
        module = competitor.command[competitor.command.index("-m") + 1]
        assert importlib.util.find_spec(module)


def test_the_fastest_of_a_kind_counts():
    content = rates.as_json(RESULTS)
    assert content[goals.BATCHED]["label"] == "vmap, 2 threads"
    assert content[goals.BATCHED]["ratio"] == 3
    assert content[goals.SEQUENTIAL]["ratio"] == 16
    text = "\n".join(rates.lines(RESULTS, content))
    assert "compiled, 1 thread: failed: no compiler" in text
    assert "batched PyTorch / jaxnn: 3.00 (vmap, 2 threads)" in text


def test_without_jaxnn_there_is_no_ratio():
    lost = [failed(JAXNN, "jaxnn.sweep", "no"), *RESULTS[1:]]
    content = rates.as_json(lost)
    assert content[JAXNN] is None
    assert content[goals.BATCHED]["ratio"] is None
    assert "/ jaxnn" not in "\n".join(rates.lines(lost, content))
