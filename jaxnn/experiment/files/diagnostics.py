"""diagnostics.csv of a run: what `--diagnose` measured, a row a layer and epoch.

    epoch,step,layer,gradient_norm,...,loss_scale,skipped,loss_gap

The columns between stand in jaxnn/experiment/diagnosis.py. Rows of the whole network,
which is called "(network)", end in the loss scale of the diagnosed step, the steps that
the epoch skipped, and the validation loss (without such a split, the test loss) less
the training loss. A cell is empty where a number is not defined, and `inf` or `nan`
where it was, which FP16 skips.
"""

import csv
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.diagnosis import MEASURED, NETWORK
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.growing_csv import GrowingCsv

OF_NETWORK = ("loss_scale", "skipped", "loss_gap")
COLUMNS: tuple[str, ...] = ("epoch", "step", "layer", *MEASURED, *OF_NETWORK)


class Diagnosis(NamedTuple):
    """The diagnosis of one step.

    Attributes:
      step: its index in the run, from 0.
      table: [1 + layers, MEASURED] float32, NaN where a number is not defined.
      loss_scale: that multiplied its loss.
    """

    step: int
    table: np.ndarray
    loss_scale: float


class Diagnostics(NamedTuple):
    """What diagnostics.csv holds.

    Attributes:
      epochs: [diagnosed] int, counted from 1.
      layers: names of the rows of a table; the first is the whole network.
      measured: name -> [diagnosed, 1 + layers] float64, NaN where a cell is empty.
      of_network: name -> [diagnosed] float64.
    """

    epochs: np.ndarray
    layers: list[str]
    measured: dict[str, np.ndarray]
    of_network: dict[str, np.ndarray]

    def last(self, name: str) -> dict[str, float]:
        """Returns {layer: a measured number of the last diagnosis}, where defined."""
        values = zip(self.layers[1:], self.measured[name][-1, 1:])
        return {layer: float(value) for layer, value in values if not np.isnan(value)}


class DiagnosticsWriter:
    """Writes diagnostics.csv, the rows of an epoch at once.

    Args:
      workdir: run directory.
      layers: layers of the network.
    """

    def __init__(self, workdir: pathlib.Path, layers: Sequence[str]):
        self._file = GrowingCsv(workdir / artifacts.DIAGNOSTICS)
        self._layers = [NETWORK, *layers]

    def write(self, epoch: int, diagnosis: Diagnosis, skipped: int, gap: float) -> None:
        """Appends the rows of an epoch, counted from 1."""
        ends = [[f"{diagnosis.loss_scale:g}", skipped, _cell(gap)]]
        ends += [[""] * len(OF_NETWORK)] * (len(self._layers) - 1)
        rows = [
            [epoch, diagnosis.step, layer, *map(_cell, values), *end]
            for layer, values, end in zip(self._layers, diagnosis.table, ends)
        ]
        self._file.write(COLUMNS, rows)

    def close(self) -> None:
        """Closes the file; the next `write` opens it again."""
        self._file.close()


def keep(workdir: pathlib.Path, epochs: int) -> None:
    """Drops the rows after an epoch, which a resumed run writes again."""
    path = workdir / artifacts.DIAGNOSTICS
    if not path.exists():
        return
    rows = [row for row in _rows(path) if int(row["epoch"]) <= epochs]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    artifacts.write_text(path, text.getvalue())


def read(workdir: pathlib.Path) -> Diagnostics | None:
    """Returns what a run's diagnostics.csv holds, or None if there is none or no row.

    Raises:
      UserError: the file is not as it was written.
    """
    path = workdir / artifacts.DIAGNOSTICS
    rows = _rows(path) if path.exists() else []
    if not rows:
        return None
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    networks = [row for row in rows if row["layer"] == NETWORK]
    if len(rows) != len(networks) * len(layers) or layers[0] != NETWORK:
        raise UserError(f"{path}: rows are missing; put it back as it was written")
    shape = (len(networks), len(layers))
    return Diagnostics(
        np.array([int(row["epoch"]) for row in networks]),
        layers,
        {
            name: np.array([_number(row[name]) for row in rows]).reshape(shape)
            for name in MEASURED
        },
        {
            name: np.array([_number(row[name]) for row in networks])
            for name in OF_NETWORK
        },
    )


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows; raises UserError on the first that is not as it was written."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    rows = list(csv.DictReader(lines))
    for number, row in enumerate(rows, 2):
        if not _is_whole(row):
            raise UserError(
                f"{path}:{number}: not a row as it was written; put the file back"
            )
    return rows


def _is_whole(row: Mapping[str, str]) -> bool:
    if tuple(row) != COLUMNS or None in row.values():
        return False
    try:
        for name in COLUMNS:
            if name != "layer":
                _number(row[name])
        return int(row["epoch"]) > 0
    except ValueError:
        return False


def _cell(value: float) -> str:
    # What is not defined is NaN in a table, and empty here.
    return "" if math.isnan(value) else f"{value:.6g}"


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
