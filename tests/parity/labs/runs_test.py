"""Runs by what they have in common."""

import math
import pathlib

import numpy as np
import pytest

from jaxnn.experiment.diagnosis import MEASURED, NETWORK
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep.records import DIVERGED, DONE, Record
from parity.labs import runs
from parity.labs.runs import Run


def run(rate, *losses, diverged=False, **more):
    rows = [{"test_loss": loss} for loss in losses]
    status = DIVERGED if diverged else DONE
    record = Record(rows, status, kept=len(rows), **more)
    return Run({"rate": rate}, Experiment(), record, pathlib.Path(), 0)


def test_split_keeps_the_order():
    found = runs.split([run(2), run(1), run(2)], "rate")
    assert [(rate, len(of)) for rate, of in found.items()] == [(2, 2), (1, 1)]


def test_curves_end_in_nan_where_a_run_ended():
    found = runs.curves([run(1, 3.0, 2.0), run(1, 4.0)], "test_loss")
    np.testing.assert_array_equal(found, [[3, 2], [4, np.nan]])


def test_kept_is_of_the_epoch_that_counts():
    one = run(1, 3.0, 1.0, 2.0)
    one.record.kept = 2
    assert runs.kept([one, run(1, 5.0)], "test_loss").tolist() == [1.0, 5.0]
    assert math.isnan(runs.kept([run(1, 5.0, diverged=True)], "test_loss")[0])


def test_best_setting_is_that_of_the_least_mean():
    found = [run(1, 1.0), run(1, 5.0), run(2, 2.0), run(2, 2.5)]
    best = runs.best_setting(found, "rate", "test_loss")
    assert [each.settings["rate"] for each in best] == [2, 2]


def test_a_setting_with_a_diverged_run_is_not_best():
    found = [run(1, 1.0), run(1, 1.0, diverged=True), run(2, 2.0)]
    (best,) = runs.best_setting(found, "rate", "test_loss")
    assert best.settings["rate"] == 2


def test_diagnosed_leaves_out_the_row_of_the_network():
    table = [[float(row)] * len(MEASURED) for row in range(3)]
    one = run(1, 1.0, layers=[NETWORK, "hidden_0", "output"], diagnoses=[table])
    layers, values = one.diagnosed("dead")
    assert layers == ["hidden_0", "output"]
    assert values.tolist() == [[1.0, 2.0]]


def test_a_flag_that_does_not_vary_is_an_error():
    with pytest.raises(KeyError):
        runs.split([run(1)], "momentum")


def test_a_mean_without_runs_is_no_figure():
    assert runs.mean([run(1, 2.0), run(1, 4.0)], "test_loss") == 3
    assert math.isnan(runs.mean(None, "test_loss"))
