"""What a doctor knows of a run, from its files or from the run itself."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import USED_BY, load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, diagnostics, locks
from jaxnn.experiment.files.diagnostics import Diagnostics
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.doctor import data_facts
from jaxnn.experiment.results.doctor.data_facts import DataFacts

NEEDED = ("epoch", "step", "learning_rate", "train_loss", "test_loss")
DOWNLOADED = ("mnist", "fashion_mnist", "cifar10")
"""Data sets that a look at a run does not fetch."""


class Evidence(NamedTuple):
    """What is known of a run.

    Attributes:
      experiment: its flags.
      metrics: columns of metrics.csv, [epochs] float64; empty without an epoch.
      skipped_steps: steps that FP16 skipped; None if the run did not end well.
      diagnostics: what `--diagnose` wrote, or None.
      facts: of the training data, or None.
      error: what ended the run before its time, or "".
      is_cut_off: it runs no more, and left neither results nor an error.
      unseen: what could not be looked at, and why.
    """

    experiment: Experiment
    metrics: Mapping[str, np.ndarray]
    skipped_steps: int | None = None
    diagnostics: Diagnostics | None = None
    facts: DataFacts | None = None
    error: str = ""
    unseen: tuple[str, ...] = ()
    is_cut_off: bool = False

    @property
    def train_loss(self) -> np.ndarray:
        """[epochs] mean loss while training."""
        return self.metrics.get("train_loss", np.zeros(0))

    @property
    def held_out(self) -> tuple[str, np.ndarray]:
        """Name and [epochs] loss of the split that decides: validation, else test."""
        name = "validation" if "validation_loss" in self.metrics else "test"
        return name, self.metrics.get(f"{name}_loss", np.zeros(0))

    @property
    def steps(self) -> int:
        """Steps that the logged epochs took."""
        return int(self.metrics["step"][-1]) if self.metrics else 0


def read(workdir: pathlib.Path) -> Evidence:
    """Reads a run of either stack, finished or not.

    Raises:
      UserError: the folder holds no run, or a file of it is damaged.
    """
    flagfile = workdir / artifacts.FLAGS
    if not flagfile.is_file():
        raise UserError(
            f"RUN: {workdir} holds no run ({artifacts.FLAGS} is missing); give the "
            "folder that training printed at its end"
        )
    experiment, _ = command_line.parse(
        ["run", f"--flagfile={flagfile}"], default_precision="fp32"
    )
    experiment = artifacts.as_trained(experiment, workdir)
    facts, unseen = _facts(experiment)
    return Evidence(
        experiment,
        _metrics(workdir),
        _skipped(workdir),
        diagnostics.read(workdir),
        facts,
        _error(workdir),
        unseen,
        _is_cut_off(workdir),
    )


def _is_cut_off(workdir: pathlib.Path) -> bool:
    ends = (artifacts.SUMMARY, artifacts.ERROR)
    has_ended = any((workdir / name).exists() for name in ends)
    return not has_ended and not locks.may_be_held(workdir)


def _metrics(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    path = workdir / artifacts.METRICS
    if not path.exists():
        return {}
    try:
        found = artifacts.read_metrics(workdir)
    # A cell too few is None, a byte too many no UTF-8.
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"RUN: {path} is not as it was written: {error}; put it back"
        ) from None
    missing = [name for name in NEEDED if found and name not in found]
    if missing:
        raise UserError(f"RUN: {path} has no column {missing[0]}; put it back")
    return found


def _skipped(workdir: pathlib.Path) -> int | None:
    path = workdir / artifacts.SUMMARY
    if not path.exists():
        return None
    try:
        return int(artifacts.read_summary(workdir)["skipped_steps"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"RUN: {path} is not as it was written: {type(error).__name__} {error}; "
            "put it back"
        ) from None


def _error(workdir: pathlib.Path) -> str:
    path = workdir / artifacts.ERROR
    try:
        return path.read_text("utf-8").strip() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"RUN: cannot read {path}: {error}") from None


def _facts(experiment: Experiment) -> tuple[DataFacts | None, tuple[str, ...]]:
    """Returns facts of the training data, or why there are none."""
    if experiment.dataset in DOWNLOADED and not experiment.data_path:
        return None, (f"inputs: --dataset={experiment.dataset} is not read again",)
    try:
        return of_data(experiment, load_dataset(experiment)), ()
    except UserError as error:
        where = "" if experiment.dataset in USED_BY["data_path"] else "their source: "
        return None, (f"inputs: {where}{error}",)


def of_data(experiment: Experiment, data: Dataset) -> DataFacts:
    """Returns the facts of a data set that a doctor looks at."""
    return data_facts.of(experiment, data)
