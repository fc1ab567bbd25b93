"""Log of a run: metrics by epoch, then summary, parameters, plots and printed lines."""

import contextlib
import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnn.experiment.data import description
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError, one_line
from jaxnn.experiment.files import artifacts, diagnostics
from jaxnn.experiment.files.diagnostics import Diagnosis
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import doctor, layer_table, quick_matplotlib, report
from jaxnn.experiment.results.doctor import evidence
from jaxnn.experiment.results.epoch_times import EpochTimes
from jaxnn.experiment.results.progress import ProgressBar
from jaxnn.experiment.results.trackers import Trackers

ALWAYS = ("step", "train_loss", "test_loss")
"""Columns of metrics.csv, whatever the experiment, besides the epoch."""
LINE = ("weight", "bias")
"""Further ones where a line is fitted."""


class RunLog:
    """Collects, writes and prints the results of one run, the same for both stacks.

    Args:
      experiment: experiment that runs.
      data: its data set.
      stack: "jax" or "torch".
      workdir: run directory, or None on processes that do not write.
      metric_name: name of the metric next to the test loss.
      layers: that `--diagnose` looks at.

    Attributes:
      skipped_steps: number of skipped (overflowed) steps so far.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Dataset,
        stack: str,
        workdir: pathlib.Path | None,
        metric_name: str,
        layers: Sequence[str] = (),
    ):
        self._experiment = experiment
        self._data = data
        self._stack = stack
        self._workdir = workdir
        self._metric_name = metric_name
        # One process tells; the others have read the same.
        if workdir and data.notes:
            print("\n".join(data.notes), flush=True)
        self._writer = artifacts.MetricsWriter(workdir) if workdir else None
        self._diagnostics = (
            diagnostics.DiagnosticsWriter(workdir, layers)
            if workdir and experiment.diagnose
            else None
        )
        self._progress = ProgressBar(experiment.epochs if workdir else 0)
        self._trackers = Trackers(experiment, workdir)
        self._times = EpochTimes()
        self._row: dict[str, float] = {}
        self._rows: list[dict[str, float]] = []
        self._best: dict[str, Any] = {}
        self._samples_seen = 0
        self._skipped_in_epoch = 0
        self.skipped_steps = 0

    def resume(self, epochs: int, skipped_steps: int) -> list[float]:
        """Continues the log of a run.

        Args:
          epochs: number of epochs done; later rows of metrics.csv are dropped.
          skipped_steps: number of steps skipped in them.

        Returns:
          The validation losses of these epochs; [] without a validation split and on
          processes that do not write.

        Raises:
          UserError: metrics.csv is not as it was written.
        """
        self.skipped_steps = skipped_steps
        if not self._writer:
            return []
        self._trackers.resume(epochs)
        if self._workdir:
            diagnostics.keep(self._workdir, epochs)
        self._rows = [
            {name: float(value) for name, value in row.items()}
            | {name: int(row[name]) for name in ("epoch", "step") if name in row}
            for row in self._writer.keep(epochs)
        ]
        for name in ALWAYS:
            if self._rows and name not in self._rows[0]:
                raise UserError(
                    f"--resume: {artifacts.METRICS} has no column {name}; put it back "
                    "as it was written, or --overwrite the run"
                )
        self._row = self._rows[-1] if self._rows else {}
        return [
            row["validation_loss"] for row in self._rows if "validation_loss" in row
        ]

    def network(self, network: layer_table.Network) -> None:
        """Shows what is trained."""
        if self._workdir:
            print("\n".join(layer_table.lines(network)), flush=True)

    def __enter__(self) -> "RunLog":
        self._times.start()
        self._progress.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._progress.__exit__(*exception)
        error = exception[1] if len(exception) > 1 else None
        self._note(error)
        if error:
            self._trackers.close(1)
        for writer in (self._writer, self._diagnostics):
            if writer:
                writer.close()

    def _note(self, error: BaseException | None) -> None:
        """Writes what ends the run before its time; forgets what ended it before."""
        if not self._workdir:
            return
        path = self._workdir / artifacts.ERROR
        path.unlink(missing_ok=True)
        if isinstance(error, Exception):
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            text = one_line(" ".join(f"{kind}{error}".split()))
            # Where the disk is full, the error itself must come through.
            with contextlib.suppress(OSError):
                artifacts.write_text(path, f"{text}\n")

    def epoch(
        self,
        epoch: int,
        losses: np.ndarray,
        weights: np.ndarray,
        skipped: np.ndarray,
        learning_rate: float,
        means: Mapping[str, Iterable[float]],
        line: Iterable[float] | None = None,
    ) -> None:
        """Writes and shows the metrics of one epoch.

        Args:
          epoch: epoch index, from 0.
          losses: [steps] mean loss of each batch.
          weights: [steps] samples in each batch.
          skipped: [steps] bool, True for overflowed steps.
          learning_rate: learning rate of the last step.
          means: split -> (mean loss, mean metric); "test" first.
          line: weight and bias of a fitted line.

        Raises:
          UserError: a value is not finite, or a static loss scale skips every step.
        """
        self._check_static_scale(epoch, skipped)
        self._skipped_in_epoch = int(skipped.sum())
        self.skipped_steps += self._skipped_in_epoch
        self._samples_seen += int(weights.sum())

        self._row = {
            "epoch": epoch + 1,
            "step": int(self._row.get("step", 0)) + len(weights),
            "learning_rate": float(learning_rate),
            "train_loss": mean_loss(losses, weights, skipped),
        }
        for split, (loss, metric) in means.items():
            self._row |= {
                f"{split}_loss": float(loss),
                f"{split}_{self._metric_name}": float(metric),
            }
        # The rows of a run that an older version began have no line, and get none.
        if line is not None and (not self._rows or LINE[0] in self._rows[0]):
            self._row |= {name: float(value) for name, value in zip(LINE, line)}
        self._rows.append(self._row)
        if self._writer:
            self._writer.write(self._row)
            self._progress.show(self._row)
        self._trackers.epoch(int(self._row["epoch"]), self._row)

    def timed(self, together: int = 1, compiled: float = 0.0) -> None:
        """Says that the epoch that was logged last has ended.

        Args:
          together: number of epochs in its call.
          compiled: seconds spent compiling so far.
        """
        self._times.end(together, compiled)

    def diagnose(self, diagnosis: Diagnosis) -> None:
        """Writes the diagnosis of the epoch that was logged last."""
        if self._diagnostics:
            row = self._row
            held_out = row.get("validation_loss", row["test_loss"])
            gap = held_out - row["train_loss"]
            epoch = int(row["epoch"])
            self._diagnostics.write(epoch, diagnosis, self._skipped_in_epoch, gap)

    def _check_static_scale(self, epoch: int, skipped: np.ndarray) -> None:
        """Raises UserError if nothing is learned: the parameters stay what they are."""
        scale = self._experiment.static_loss_scale
        if self._experiment.precision != "fp16" or not scale or not skipped.all():
            return
        raise UserError(
            f"--static_loss_scale: at {scale:g} all {len(skipped)} steps of epoch "
            f"{epoch + 1} overflowed and were skipped; give a smaller one, or leave it "
            "out for dynamic loss scaling"
        )

    def keep(self, epoch: int) -> None:
        """Records that early stopping restored the parameters of an epoch, from 0.

        The summary then holds the metrics of that epoch instead of the last one's.
        """
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
        """Writes parameters, summary and plots; prints metrics, times and the workdir.

        Args:
          params: flat master parameters.
          outputs: [test samples, ...] outputs of the trained network.
          clock: clock whose stages "train" and "compile" have ended.
          devices: name of each device trained on.
          packages: distributions whose versions the summary holds.
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
        self._write(self._workdir, params, summary)
        try:
            if self._experiment.plots:
                self._draw(self._workdir, params, outputs, predict)
        # After a full disk pictures are drawn anew by jaxnn.plots; the run is complete.
        except Exception:
            artifacts.write_summary(self._workdir, summary)
            raise
        self._trackers.images(int(self._row["epoch"]))
        self._trackers.close(0)
        # Last: a run that has one is complete, and is not resumed.
        artifacts.write_summary(self._workdir, summary)
        clock.end("files")
        self._announce(final, clock)
        self._examine(self._workdir)

    def _draw(
        self,
        workdir: pathlib.Path,
        params: Mapping[str, np.ndarray],
        outputs: np.ndarray,
        predict: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        # matplotlib takes long to import.
        with quick_matplotlib.undocumented():
            from jaxnn.experiment.results import plots

        plots.draw(self._experiment, self._data, workdir, params, outputs, predict)

    def _write(
        self,
        workdir: pathlib.Path,
        params: Mapping[str, np.ndarray],
        summary: Mapping[str, Any],
    ) -> None:
        # Checked before anything is written: a run that diverged leaves no parameters.
        artifacts.require_finite(summary, artifacts.SUMMARY)
        artifacts.write_params(workdir / artifacts.PARAMS, params)
        if self._data.description:
            text = description.to_json(self._data.description)
            artifacts.write_text(workdir / artifacts.DATA, text)

    def _summary(self, clock: "Clock", final: Mapping[str, Any]) -> dict[str, Any]:
        kept = self._kept_row()
        return {
            "experiment": self._experiment.name,
            "stack": self._stack,
            "precision": self._experiment.precision,
            "epochs": int(self._row["epoch"]),
            "steps": int(self._row["step"]),
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
        """Returns the row of the epoch whose parameters are kept."""
        best_epoch = self._best.get("best_epoch")
        best = (row for row in self._rows if row["epoch"] == best_epoch)
        return next(best, self._row)

    def _gaps(self) -> dict[str, float]:
        """Returns the generalization gaps, test - training, with `--evaluate_train`."""
        row = self._kept_row()
        if "evaluated_train_loss" not in row:
            return {}
        metric = self._metric_name
        # Absolute, because an accuracy falls and an error grows.
        difference = row[f"evaluated_train_{metric}"] - row[f"test_{metric}"]
        return {
            "loss_gap": row["test_loss"] - row["evaluated_train_loss"],
            f"{metric}_gap": abs(difference),
        }

    def _examine(self, workdir: pathlib.Path) -> None:
        """Prints what a doctor finds, one line each."""
        known = evidence.Evidence(
            self._experiment,
            artifacts.read_metrics(workdir),
            self.skipped_steps,
            diagnostics.read(workdir),
            evidence.of_data(self._experiment, self._data),
        )
        for finding in doctor.examine(known):
            print(finding)

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
        if self._times.seconds:
            print(self._times.line())
        times = [f"{stage} {value:.2f}" for stage, value in clock.seconds.items()]
        print(f"seconds: {', '.join(times)}")
        print(f"files: {self._workdir}")


def mean_loss(losses: np.ndarray, weights: np.ndarray, skipped: np.ndarray) -> float:
    """Returns the mean training loss of an epoch; NaN if nothing is known of it.

    Args:
      losses: [steps] mean loss of each batch.
      weights: [steps] samples in each batch.
      skipped: [steps] bool, True for overflowed steps.
    """
    # A skipped FP16 step may have overflowed in the loss itself. It is left out of the
    # mean; any other loss that is not finite stops the run.
    known = np.isfinite(losses) | ~skipped
    counts = weights[known]
    if not known.any():
        return float("nan")
    return float(losses[known] @ counts / counts.sum())


class Clock:
    """Wall time of each stage of a run.

    Attributes:
      seconds: stage -> seconds.
    """

    def __init__(self):
        # Nothing can time the imports from before the first of them; the processor time
        # of the process so far is what they took.
        self.seconds = {"import": time.process_time()}
        self._last = time.perf_counter()

    def end(self, stage: str, **parts: float) -> None:
        """Ends a stage, which began where the last one ended.

        Args:
          stage: name of the stage.
          **parts: seconds within this stage that count as stages of their own.
        """
        now = time.perf_counter()
        rest = now - self._last - sum(parts.values())
        self.seconds |= parts | {stage: rest}
        self._last = now


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of Python and of installed distributions."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
