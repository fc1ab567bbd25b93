"""The layers of a network as a plain table, which a run prints at its start."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnn.experiment.diagnosis import layer_of

MOST_ROWS = 12
"""Rows of a table; those of longer networks are put together."""
LAST_ROWS = 3
"""Of them, those at the end if the middle is left out."""
Shape = tuple[int, ...]
HEADER = ("layer", "output", "parameters", "count")


class Network(NamedTuple):
    """Shapes of a network.

    Attributes:
      params: flat name -> shape of a parameter, in the order in which they are made.
      outputs: layer -> shape of what it returns for one sample. A layer that holds
        others may be among them.
    """

    params: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


class Row(NamedTuple):
    """A row of the table: name, output and parameters as text, number of parameters."""

    name: str
    output: str
    parameters: str
    count: int


def lines(network: Network) -> list[str]:
    """Returns the table, at most `MOST_ROWS` and two lines."""
    rows = _rows(network)
    if len(rows) > MOST_ROWS:
        rows = _by_block(rows, network.outputs)
    if len(rows) > MOST_ROWS:
        rows = _without_middle(rows)
    total = sum(map(math.prod, network.params.values()))
    return [*_aligned(rows), f"{total:,} parameters"]


def _rows(network: Network) -> list[Row]:
    """Returns a row for each layer that has parameters of its own."""
    params = network.params
    return [
        Row(
            layer,
            _shape(network.outputs.get(layer)),
            ", ".join(_parameter(name, layer, params[name]) for name in names),
            sum(math.prod(params[name]) for name in names),
        )
        for layer, names in (
            (layer, list(names)) for layer, names in itertools.groupby(params, layer_of)
        )
    ]


def _by_block(rows: Sequence[Row], outputs: Mapping[str, Shape]) -> list[Row]:
    """Puts the layers of each outermost block into one row."""
    found = []
    for block, group in itertools.groupby(rows, lambda row: row.name.split("/")[0]):
        inside = list(group)
        if inside[0].name == block:
            found += inside
            continue
        output = _shape(outputs.get(block)) or inside[-1].output
        count = sum(row.count for row in inside)
        found.append(Row(block, output, f"{len(inside)} layers", count))
    return found


def _without_middle(rows: Sequence[Row]) -> list[Row]:
    first = MOST_ROWS - LAST_ROWS - 1
    middle = rows[first:-LAST_ROWS]
    count = sum(row.count for row in middle)
    return [
        *rows[:first],
        Row("...", "", f"{len(middle)} more", count),
        *rows[-LAST_ROWS:],
    ]


def _aligned(rows: Sequence[Row]) -> list[str]:
    table = [HEADER, *((*row[:-1], f"{row.count:,}") for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    return [
        "  ".join(
            [cell.ljust(width) for cell, width in zip(cells[:-1], widths)]
            + [cells[-1].rjust(widths[-1])]
        )
        for cells in table
    ]


def _parameter(name: str, layer: str, shape: Shape) -> str:
    """Returns "kernel 30x64"; the shape alone if the parameter is the layer."""
    leaf = name.removeprefix(f"{layer}/")
    return _shape(shape) if leaf == layer else f"{leaf} {_shape(shape)}"


def _shape(shape: Shape | None) -> str:
    return "x".join(map(str, shape or ()))
