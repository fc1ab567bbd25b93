"""Where a lab works: its flags, its folder, and how it trains there."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnn import train
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep import __main__ as sweep
from jaxnn.sweep.members import Member
from parity.labs.runs import Run

LOG = "log.txt"
"""What trainings print, in the folder of a lab."""


class Timed(NamedTuple):
    """A run of jaxnn.train.

    Attributes:
      metrics: column of metrics.csv -> [epochs].
      seconds: that its training took, without compiling.
    """

    metrics: dict[str, np.ndarray]
    seconds: float


class Bench(NamedTuple):
    """Where a lab works.

    Attributes:
      flags: of its experiment: the flagfile, and those that change it.
      workdir: its folder.
      is_reduced: True to do as little as shows anything at all.
    """

    flags: tuple[str, ...]
    workdir: pathlib.Path
    is_reduced: bool = False

    def experiment(self, *more: str) -> Experiment:
        """Returns the experiment of the flags; raises UserError on bad ones."""
        return self._parsed(more)[0]

    def grid(self, *more: str) -> str:
        """Returns the flags' --grid."""
        return self._parsed(more)[1].grid

    def members(self, *more: str) -> list[Member]:
        """Returns the members of the flags' --grid, untrained."""
        return sweep.make_members(*self._parsed(more))

    def data(self, *more: str) -> Dataset:
        """Returns the data set of the flags; raises UserError if it is not at hand."""
        return load_dataset(self.experiment(*more))

    def swept(
        self, name: str, *more: str, also: Mapping[str, Any] | None = None
    ) -> list[Run]:
        """Trains the members of --grid.

        Args:
          name: of the sweep's folder.
          *more: flags after those of the lab.
          also: settings to give each run beside those of its axes.
        """
        experiment, values = self._parsed((*more, f"--workdir={self.workdir / name}"))
        with self._logged():
            done = sweep.main(experiment, values)
        return [
            Run(
                {**(also or {}), **member.settings},
                member.experiment,
                done.records[member.number],
                done.workdir,
                member.number,
            )
            for member in done.members
        ]

    def trained(self, name: str, experiment: Experiment) -> Timed:
        """Trains one experiment alone, as jaxnn.train does on one device."""
        workdir = self.workdir / name
        alone = experiment.replace(workdir=str(workdir), num_devices=1, plots=False)
        with self._logged():
            train.main(alone)
        summary = artifacts.read_summary(workdir)
        return Timed(artifacts.read_metrics(workdir), summary["train_seconds"])

    @contextlib.contextmanager
    def _logged(self):
        """Puts what is printed into a file."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        with (self.workdir / LOG).open("a") as log, contextlib.redirect_stdout(log):
            yield

    def _parsed(self, more: tuple[str, ...]):
        argv = ["labs", *self.flags, "--noplots", "--overwrite", *more]
        return command_line.parse(argv, "fp32", sweep.define_more)
