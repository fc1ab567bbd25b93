"""curves.csv and diagnostics.csv of a sweep."""

import csv
import io
import math

from jaxnn.experiment.diagnosis import MEASURED
from jaxnn.sweep import curves
from jaxnn.sweep.members import Member
from jaxnn.sweep.records import Record
from tests.jaxnn.sweep.sweeping import members


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def two_members() -> list[Member]:
    return members("--grid=learning_rate=0.1,0.2")


def test_a_row_for_each_epoch_of_each_member():
    found = {
        0: Record([{"train_loss": 2.0}, {"train_loss": 1.0}]),
        1: Record([{"train_loss": 3.0}]),
    }
    read = rows(curves.metrics(two_members(), found))
    assert [list(row.values()) for row in read] == [
        ["0", "0.1", "1", "2.0"],
        ["0", "0.1", "2", "1.0"],
        ["1", "0.2", "1", "3.0"],
    ]


def test_a_member_without_an_epoch_has_no_row():
    found = {0: Record(), 1: Record([{"train_loss": 3.0}])}
    assert [row["member"] for row in rows(curves.metrics(two_members(), found))] == [
        "1"
    ]


def test_layers_of_each_epoch_with_empty_cells():
    table = [[float(n) for n in range(len(MEASURED))], [math.nan] * len(MEASURED)]
    layers = ["(network)", "output"]
    found = {0: Record(), 1: Record([{}], layers=layers, diagnoses=[table])}
    network, output = rows(curves.diagnostics(two_members(), found))
    assert (network["layer"], network["weight_norm"]) == ("(network)", "1")
    assert (output["epoch"], output["gradient_norm"]) == ("1", "")
