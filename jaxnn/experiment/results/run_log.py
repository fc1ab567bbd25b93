"""A run as it is written down and shown: rows while it trains, the summary, files and
plots at its end."""

import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnn.experiment.data import description
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import report
from jaxnn.experiment.results.progress import ProgressBar


class RunLog:
    """Collects one run's results; both stacks fill it the same way.

    Args:
      experiment: what runs.
      data: its data set.
      stack: "jax" or "torch".
      workdir: made by `records.create_workdir`; None on a rank that writes and shows
        nothing.
      metric_name: of the metric that accompanies the test loss.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Dataset,
        stack: str,
        workdir: pathlib.Path | None,
        metric_name: str,
    ):
        self._experiment, self._data, self._stack = experiment, data, stack
        self._workdir, self._metric_name = workdir, metric_name
        self._writer = artifacts.MetricsWriter(workdir) if workdir else None
        self._progress = ProgressBar(experiment.epochs if workdir else 0)
        self._row: dict[str, float] = {}
        self._rows: list[dict[str, float]] = []
        self._best: dict[str, Any] = {}
        self.skipped_steps, self._samples_seen = 0, 0

    def resume(self, epochs: int, skipped_steps: int) -> list[float]:
        """Continues the log of a run after so many epochs; returns their losses on the
        validation split, if any."""
        self.skipped_steps = skipped_steps
        if not self._writer:
            return []
        self._rows = [
            {
                name: int(value) if name in ("epoch", "step") else float(value)
                for name, value in row.items()
            }
            for row in self._writer.keep(epochs)
        ]
        self._row = self._rows[-1] if self._rows else {}
        return [
            row["validation_loss"] for row in self._rows if "validation_loss" in row
        ]

    def __enter__(self) -> "RunLog":
        self._progress.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._progress.__exit__(*exception)
        if self._writer:
            self._writer.close()

    def epoch(
        self,
        epoch: int,
        losses: np.ndarray,
        weights: np.ndarray,
        skipped: np.ndarray,
        learning_rate: float,
        means: Mapping[str, Sequence[float]],
    ) -> None:
        """Writes and shows one epoch.

        Args:
          epoch: 0-based.
          losses: [steps] mean loss of each batch.
          weights: [steps] samples in each batch.
          skipped: [steps] bool.
          learning_rate: of the last step.
          means: split -> mean loss and mean metric; "test" first.

        Raises:
          UserError: a value is not finite.
        """
        self.skipped_steps += int(skipped.sum())
        self._samples_seen += int(weights.sum())
        known = (
            np.isfinite(losses) | ~skipped
        )  # a skipped FP16 step may have overflowed in the loss itself
        losses, counts = losses[known], weights[known]
        train_loss = (
            float(losses @ counts / counts.sum()) if known.any() else float("nan")
        )
        steps = int(self._row.get("step", 0)) + len(weights)
        self._row = {
            "epoch": epoch + 1,
            "step": steps,
            "learning_rate": float(learning_rate),
            "train_loss": train_loss,
        }
        for split, (loss, metric) in means.items():
            self._row |= {
                f"{split}_loss": float(loss),
                f"{split}_{self._metric_name}": float(metric),
            }
        self._rows.append(self._row)
        if self._writer:
            self._writer.write(self._row)
            self._progress.show(self._row)

    def keep(self, epoch: int) -> None:
        """Says that early stopping restored the parameters after an epoch (0-based),
        whose figures count."""
        self._best = {
            "best_epoch": epoch + 1,
            "stopped_early": self._row["epoch"] < self._experiment.epochs,
        }

    def finish(
        self,
        params: Mapping[str, np.ndarray],
        outputs: np.ndarray,
        clock: "Clock",
        devices: Sequence[str],
        packages: Sequence[str],
        more: Mapping[str, Any] | None = None,
        predict: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Writes parameters, summary and plots, and prints the outcome, where the time
        went and where the files are.

        Args:
          params: flat master parameters.
          outputs: [test samples, ...] of the trained network.
          clock: has ended "train" and "compile".
          devices: a name for each device trained on.
          packages: distributions whose versions matter.
          more: further entries of the summary.
          predict: inputs [n, ...] -> outputs [n, ...] of the trained network, for the
            plots.
        """
        if not self._workdir:
            return
        final = (
            report.final_metrics(self._experiment, self._data, params, outputs)
            | self._gaps()
        )
        summary = self._summary(clock, final) | {
            "num_params": int(sum(array.size for array in params.values())),
            "num_devices": len(devices),
            "device": devices[0],
            "versions": versions(packages),
            **(more or {}),
        }
        artifacts.require_finite(summary, artifacts.SUMMARY)
        artifacts.write_params(self._workdir / artifacts.PARAMS, params)
        artifacts.write_summary(self._workdir, summary)
        if self._data.description:
            artifacts.write_text(
                self._workdir / artifacts.DATA,
                description.to_json(self._data.description),
            )
        if self._experiment.plots:
            from jaxnn.experiment.results import plots

            plots.draw(
                self._experiment, self._data, self._workdir, params, outputs, predict
            )
        clock.end("files")
        self._announce(final, clock)

    def _summary(self, clock: "Clock", final: Mapping[str, Any]) -> dict[str, Any]:
        experiment, row, kept = self._experiment, self._row, self._kept_row()
        return {
            "experiment": experiment.name,
            "stack": self._stack,
            "precision": experiment.precision,
            "epochs": int(row["epoch"]),
            "steps": int(row["step"]),
            "skipped_steps": self.skipped_steps,
            "train_loss": kept["train_loss"],
            "test_loss": kept["test_loss"],
            **self._best,
            "final": final,
            "train_seconds": clock.seconds["train"],
            "compile_seconds": clock.seconds["compile"],
            "samples_per_second": self._samples_seen / clock.seconds["train"],
        }

    def _kept_row(self) -> dict[str, float]:
        return next(
            (row for row in self._rows if row["epoch"] == self._best.get("best_epoch")),
            self._row,
        )

    def _gaps(self) -> dict[str, float]:
        """How much worse the test split fares than the training split, under
        `--evaluate_train`."""
        row = self._kept_row()
        if "evaluated_train_loss" not in row:
            return {}
        metric = self._metric_name
        return {
            "loss_gap": row["test_loss"] - row["evaluated_train_loss"],
            f"{metric}_gap": abs(
                row[f"evaluated_train_{metric}"] - row[f"test_{metric}"]
            ),
        }

    def _announce(self, final: Mapping[str, Any], clock: "Clock") -> None:
        print("\n".join(report.lines(final)))
        if self._best:
            print(
                f"early stopping: parameters of epoch {self._best['best_epoch']} of "
                f"{self._row['epoch']} kept"
            )
        if self.skipped_steps:
            print(
                f"{self.skipped_steps} of {self._row['step']} steps skipped (FP16 "
                "overflow)"
            )
        print(
            "seconds: "
            + ", ".join(
                f"{stage} {value:.2f}" for stage, value in clock.seconds.items()
            )
        )
        print(f"files: {self._workdir}")


class Clock:
    """Wall seconds of each stage of a run.

    Attributes:
      seconds: stage -> seconds. "import" is the processor time the process had used at
        the start, which is what importing took.
    """

    def __init__(self):
        self.seconds = {"import": time.process_time()}
        self._last = time.perf_counter()

    def end(self, stage: str, **parts: float) -> None:
        """Ends a stage that began where the last one ended.

        Args:
          stage: its name.
          **parts: seconds of this stage that count as stages of their own.
        """
        now = time.perf_counter()
        self.seconds |= parts | {stage: now - self._last - sum(parts.values())}
        self._last = now


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's version and each installed distribution's."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def stop_unless_finite(
    names: Sequence[str], finite: np.ndarray, first_step: int
) -> None:
    """Raises UserError naming the first step and tensor that is not finite.

    Args:
      names: [tensors] names.
      finite: [steps, tensors] bool.
      first_step: step number of the first row.
    """
    if not finite.all():
        step, tensor = np.argwhere(~finite)[0]
        raise UserError(
            f"step {first_step + step}: {names[tensor]} is not finite; training "
            "diverged, try a smaller --learning_rate"
        )
