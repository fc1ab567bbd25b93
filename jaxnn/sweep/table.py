"""The ranked settings of a sweep, as a table for the terminal."""

import math
import statistics
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from jaxnn.experiment.results.console import table_console
from jaxnn.sweep import axes, records
from jaxnn.sweep.ranking import Ranked
from jaxnn.sweep.records import Record

MOST_ROWS = 20
"""Columns where the output is no terminal."""


def show(
    ranked: Sequence[Ranked], found: Mapping[int, Record], columns: tuple[str, str]
) -> None:
    """Prints the best settings, a row each: means over their seeds and folds.

    Args:
      ranked: settings, the best first.
      found: member's number -> its record.
      columns: what ranks them, and what stands beside it.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    flags = list(ranked[0].settings)
    for header in ("", *flags, *columns, "best epoch", "members"):
        table.add_column(header.replace("_", " ") if header not in flags else header)
    for place, each in enumerate(ranked[:MOST_ROWS], 1):
        values = [axes.spell_value(each.settings[flag]) for flag in flags]
        table.add_row(str(place), *values, *_cells(each, found, columns))
    console = table_console()
    console.print(table)
    if len(ranked) > MOST_ROWS:
        print(f"{len(ranked) - MOST_ROWS} more settings in sweep.csv")


def _cells(
    each: Ranked, found: Mapping[int, Record], columns: tuple[str, str]
) -> tuple[str, ...]:
    of = [found[member.number] for member in each.members]
    ends = {record.status for record in of} - {records.DONE}
    state = f" ({', '.join(sorted(ends))})" if ends else ""
    members = f"{len(of)}{state}"
    if not math.isfinite(each.score):
        steps = [record.step for record in of if record.status == records.DIVERGED]
        first = f", first at step {min(steps)}" if steps else ""
        return "", "", "", f"{members}{first}"
    kept = [record.rows[record.kept - 1] for record in of]
    means = [_with_spread([row[column] for row in kept]) for column in columns]
    best = statistics.median(record.best for record in of)
    return *means, f"{best:g}", members


def _with_spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.4g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean
