"""What members did by epoch, as CSV: metrics, and under `--diagnose` their layers.

curves.csv       member, the axes, epoch, the columns of metrics.csv
diagnostics.csv  member, the axes, epoch, layer, what --diagnose measures
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxnn.experiment.diagnosis import MEASURED
from jaxnn.sweep import axes
from jaxnn.sweep.members import Member
from jaxnn.sweep.records import Record


def metrics(members: Sequence[Member], found: Mapping[int, Record]) -> str:
    """Returns curves.csv: a row for each epoch of each member."""
    rows = [row for record in found.values() for row in record.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return _table(members, ("epoch", *columns), lambda m: _epochs(found[m], columns))


def diagnostics(members: Sequence[Member], found: Mapping[int, Record]) -> str:
    """Returns diagnostics.csv: a row for each layer of each epoch of each member.

    A cell is empty where a number is not defined.
    """
    head = ("epoch", "layer", *MEASURED)
    return _table(members, head, lambda m: _layers(found[m]))


def _epochs(record: Record, columns: Sequence[str]) -> Iterator[list[Any]]:
    for epoch, row in enumerate(record.rows, 1):
        yield [epoch, *(row.get(name, "") for name in columns)]


def _layers(record: Record) -> Iterator[list[Any]]:
    for epoch, table in enumerate(record.diagnoses, 1):
        for layer, values in zip(record.layers, table):
            yield [epoch, layer, *("" if math.isnan(v) else f"{v:.6g}" for v in values)]


def _table(members: Sequence[Member], head: Sequence[str], rows: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["member", *members[0].settings, *head])
    for member in members:
        values = [axes.spell_value(value) for value in member.settings.values()]
        for row in rows(member.number):
            writer.writerow([member.number, *values, *row])
    return text.getvalue()
