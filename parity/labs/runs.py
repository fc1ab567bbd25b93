"""Trained members of sweeps, put together by what they have in common."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.diagnosis import MEASURED
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep import networks
from jaxnn.sweep.networks import Network
from jaxnn.sweep.records import DIVERGED, Record


class Run(NamedTuple):
    """One trained network.

    Attributes:
      settings: flag -> value, of what varies in the lab.
      experiment: what it was trained by.
      record: its curves, and how it ended.
      workdir: folder of its sweep.
      number: of the member in that sweep.
    """

    settings: dict[str, Any]
    experiment: Experiment
    record: Record
    workdir: pathlib.Path
    number: int

    @property
    def diverged(self) -> bool:
        """True if training ended in numbers that are not finite."""
        return self.record.status == DIVERGED

    def network(self) -> Network:
        """Returns what it has learned; its sweep ran with `--save_networks`."""
        return networks.read(self.workdir, self.number)

    def diagnosed(self, name: str) -> tuple[list[str], np.ndarray]:
        """Returns layers, and [epochs, layers] of a number that `--diagnose` measured.

        Args:
          name: one of `MEASURED`.
        """
        tables = np.array(self.record.diagnoses)
        return self.record.layers[1:], tables[:, 1:, MEASURED.index(name)]


def split(runs: Sequence[Run], flag: str) -> dict[Any, list[Run]]:
    """Returns value of a flag -> the runs that have it, in the order of the runs."""
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(run.settings[flag], []).append(run)
    return found


def curves(runs: Sequence[Run], column: str) -> np.ndarray:
    """Returns [runs, epochs] of a column, NaN after the end of those that diverged."""
    longest = max(len(run.record.rows) for run in runs)
    whole = np.full((len(runs), longest), np.nan)
    for place, run in enumerate(runs):
        values = [row[column] for row in run.record.rows]
        whole[place, : len(values)] = values
    return whole


def kept(runs: Sequence[Run], column: str) -> np.ndarray:
    """Returns [runs] of a column at the epoch whose network counts; NaN: diverged."""
    return np.array(
        [
            np.nan if run.diverged else run.record.rows[run.record.kept - 1][column]
            for run in runs
        ]
    )


def mean(runs: Sequence[Run] | None, column: str) -> float:
    """Returns the mean of `kept`; NaN without runs, as of a lab at reduced size."""
    return float(np.mean(kept(runs, column))) if runs else math.nan


def best_setting(runs: Sequence[Run], flag: str, column: str) -> list[Run]:
    """Returns the runs of the value of a flag with the least mean of a column.

    A value with a diverged run is taken only if all have one.

    Args:
      runs: whose.
      flag: that varies among them.
      column: of `Record.rows`, less is better.
    """
    means = {
        value: np.mean(kept(found, column))
        for value, found in split(runs, flag).items()
    }
    best = min(means, key=lambda value: np.nan_to_num(means[value], nan=np.inf))
    return split(runs, flag)[best]
