"""What a member has reached: its curves, and how it ended."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.diagnosis import NETWORK, due_step
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.results.run_log import mean_loss
from jaxnn.sweep.members import Member
from jaxnn.sweep.programs import Split

TRAINING = "training"
DONE = "done"
DIVERGED = "diverged"
STOPPED = "stopped early"
DROPPED = "dropped"
LOSS = "loss"
UPWARD = ("accuracy",)
"""Measures of which more is better."""


@dataclasses.dataclass
class Record:
    """A member's curves so far.

    Attributes:
      rows: one a completed epoch: column of metrics.csv -> value.
      status: TRAINING, or how it ended.
      step: step at which it diverged, from 0; -1: it did not.
      kept: epoch whose network counts, from 1: the last, or the best of early stopping.
      by: what ranks it: the loss or the metric.
      layers: rows of a diagnosis, the whole network first; empty without `--diagnose`.
      diagnoses: one a completed epoch: [1 + layers][MEASURED], as of
        jaxnn/experiment/diagnosis.py.
    """

    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    status: str = TRAINING
    step: int = -1
    kept: int = 0
    by: str = LOSS
    layers: list[str] = dataclasses.field(default_factory=list)
    diagnoses: list[list[list[float]]] = dataclasses.field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """True if further epochs count for nothing."""
        return self.status in (DIVERGED, STOPPED)

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return len(self.rows)

    @property
    def judged_by(self) -> str:
        """Column that ranks it: of the validation split, or of the test split."""
        columns = self.rows[0] if self.rows else {}
        column = f"validation_{self.by}"
        return column if column in columns else f"test_{self.by}"

    @property
    def score(self) -> float:
        """Number that ranks it, less is better; infinite if it diverged."""
        if self.status == DIVERGED or not self.rows:
            return math.inf
        return self.sign * self.rows[self.kept - 1][self.judged_by]

    @property
    def sign(self) -> int:
        """1 if less is better of what ranks it, else -1."""
        return -1 if self.by in UPWARD else 1

    @property
    def best(self) -> int:
        """Epoch that would rank it best, from 1; 0 without one."""
        scores = [self.sign * row[self.judged_by] for row in self.rows]
        return int(np.argmin(scores)) + 1 if scores else 0


class Reader:
    """Turns what the devices report of a member into its record.

    Args:
      member: who.
      split: its data.
      metric: name of the metric.
      record: what is known of it already; extended.
      layers: that are diagnosed, if any.
    """

    def __init__(
        self,
        member: Member,
        split: Split,
        metric: str,
        record: Record,
        layers: Sequence[str] = (),
    ):
        self._member = member
        self._split = split
        self._metric = metric
        self.record = record
        record.layers = [NETWORK, *layers] if layers else []
        experiment = member.experiment
        self._stopping = EarlyStopping(experiment.patience, experiment.min_delta)
        for row in record.rows if experiment.patience else ():
            self._stopping.improves(row["validation_loss"])

    def read(
        self,
        losses: np.ndarray,
        skipped: np.ndarray,
        bad: np.ndarray,
        sums: np.ndarray,
        diagnosis: np.ndarray | None = None,
    ) -> None:
        """Adds an epoch, unless the member's end came before.

        Args:
          losses: [steps] loss of each batch.
          skipped: [steps] bool.
          bad: [steps] bool, True where training diverged.
          sums: [batches, 2] as of `evaluation.means`.
          diagnosis: [steps, 1 + layers, MEASURED], NaN but where it was due; None
            without one.
        """
        record, split = self.record, self._split
        if record.is_over:
            return
        first = record.epochs * split.plan[0]
        if bad.any():
            record.status, record.step = DIVERGED, first + int(bad.argmax())
            return
        weights = batches.samples_per_step(
            self._member.experiment, len(split.data.train_inputs), len(losses)
        )
        row = {"train_loss": mean_loss(losses, weights, skipped)}
        for name, means in evaluation.means(split.splits, split.owners, sums).items():
            row |= {f"{name}_loss": float(means[0])}
            row |= {f"{name}_{self._metric}": float(means[1])}
        if not all(map(math.isfinite, row.values())):
            record.status, record.step = DIVERGED, first + len(losses) - 1
            return
        record.rows.append(row)
        if diagnosis is not None:
            place = due_step(self._split.plan, record.epochs - 1) - first
            record.diagnoses.append(diagnosis[place].astype(float).tolist())
        self._end()

    def _end(self) -> None:
        """Notes whether this epoch was the last."""
        record, experiment = self.record, self._member.experiment
        record.kept = record.epochs
        if experiment.patience:
            self._stopping.improves(record.rows[-1]["validation_loss"])
            # RunLog keeps an epoch that was never better than infinity all the same.
            record.kept = self._stopping.best_epoch + 1 or record.epochs
        if record.epochs == len(self._split.plan):
            record.status = DONE
        elif self._stopping.is_over:
            record.status = STOPPED
