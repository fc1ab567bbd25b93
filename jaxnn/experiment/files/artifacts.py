"""The workdir contract: writes and reads every file of a run.

experiment.flags     every flag's value; `--flagfile=` it to run again
metrics.csv          a row per epoch
summary.json         final metrics, counts, times, versions
params.safetensors   final master parameters, canonical names and layouts
batch_stats.safetensors  running statistics, of a network with batch normalization
data.json            what the inputs and outputs are: for predictions on other data
sample.txt           a text that a language model wrote
ds_config.json       what DeepSpeed was given, of a run under it
checkpoints/         `--checkpoint_every`
trace/               `--record`, see `trace.py`
plots/*.png
"""

import contextlib
import csv
import datetime
import io
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment

FLAGS, METRICS, SUMMARY, PARAMS = (
    "experiment.flags",
    "metrics.csv",
    "summary.json",
    "params.safetensors",
)
BATCH_STATS, DATA, SAMPLE, DS_CONFIG = (
    "batch_stats.safetensors",
    "data.json",
    "sample.txt",
    "ds_config.json",
)
MAY_CHANGE = (
    "--plots",
    "--checkpoint_every",
    "--keep",
    "--num_devices",
    "--device_cache_mb",
)
"""Flags that a resumed run may set anew."""

CONTENTS = (
    FLAGS,
    METRICS,
    SUMMARY,
    PARAMS,
    BATCH_STATS,
    DATA,
    SAMPLE,
    DS_CONFIG,
    "trace",
    "plots",
    "checkpoints",
)


def create_workdir(
    experiment: Experiment, stack: str, contents: tuple[str, ...] = CONTENTS
) -> pathlib.Path:
    """Makes the run's folder and writes `experiment.flags` into it.

    Args:
      experiment: its `workdir` (empty: a fresh folder under runs/) and `overwrite`
        decide where.
      stack: who writes; part of a fresh folder's name.
      contents: the names that make a folder "hold a run"; `overwrite` removes these and
        no others.

    Raises:
      UserError: the folder holds another run, or cannot be written.
    """
    workdir = (
        pathlib.Path(experiment.workdir)
        if experiment.workdir
        else _fresh_name(experiment.name, stack)
    )
    if experiment.resume:
        return _reopen_workdir(workdir, experiment)
    held = [workdir / name for name in contents if (workdir / name).exists()]
    if held and not experiment.overwrite:
        raise UserError(
            f"--workdir: {workdir} holds another run ({held[0].name}); choose another "
            "folder, add --overwrite to replace it or --resume to continue it"
        )
    try:
        for path in held:
            shutil.rmtree(
                path
            ) if path.is_dir() and not path.is_symlink() else path.unlink()
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(workdir / FLAGS, options.to_flagfile(experiment))
    except OSError as error:
        raise UserError(
            f"--workdir: cannot write {workdir}: {error.strerror}"
        ) from None
    return workdir


def _reopen_workdir(workdir: pathlib.Path, experiment: Experiment) -> pathlib.Path:
    """Returns the folder of the run to continue; refuses flags that would change it."""
    if not experiment.workdir or not (workdir / FLAGS).exists():
        raise UserError(
            f"--resume: give the --workdir of the run to continue; {workdir} holds none"
        )
    before, now = (
        dict(
            line.split("=", 1)
            for line in text.splitlines()
            if line.startswith("--") and "=" in line
        )
        for text in ((workdir / FLAGS).read_text(), options.to_flagfile(experiment))
    )
    for flag in now:
        if flag not in MAY_CHANGE and before.get(flag) != now[flag]:
            raise UserError(
                f"{flag}: {now[flag]} now, {before.get(flag)} in the run to resume; "
                "they must be equal"
            )
    if experiment.record != "off" and (workdir / "trace").exists():
        raise UserError(
            f"--record: {workdir}/trace holds a trace already; move it away or leave "
            "--record out"
        )
    return workdir


def _fresh_name(name: str, stack: str) -> pathlib.Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = pathlib.Path("runs") / f"{name}-{stack}-{stamp}"
    return path.with_name(f"{path.name}-{os.getpid()}") if path.exists() else path


class MetricsWriter:
    """Writes metrics.csv a row at a time; each row is in the file before `write`
    returns.

    The file is opened once: a short epoch takes less time than opening it.
    """

    def __init__(self, workdir: pathlib.Path):
        self._path = workdir / METRICS
        self._file = -1

    def write(self, row: Mapping[str, float]) -> None:
        """Appends one epoch. The first row's keys become the header.

        Raises:
          UserError: a value is not finite; the file keeps the rows before.
        """
        require_finite(row, METRICS)
        lines = ",".join(map(str, row.values())) + "\n"
        if self._file < 0:
            lines = lines if self._path.exists() else ",".join(row) + "\n" + lines
            self._file = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
            )
        os.write(self._file, lines.encode())

    def close(self) -> None:
        """Closes the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def keep(self, epochs: int) -> list[dict[str, str]]:
        """Drops the rows after an epoch, which a resumed run writes again; returns
        those kept.

        Raises:
          UserError: the rows up to that epoch are not all there.
        """
        self.close()
        if not epochs:
            self._path.unlink(missing_ok=True)
            return []
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        rows = [row for row in csv.DictReader(lines) if int(row["epoch"]) <= epochs]
        if len(rows) != epochs:
            raise UserError(
                f"--resume: {self._path} holds {len(rows)} of {epochs} epochs done; "
                "--overwrite the run"
            )
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, text.getvalue())
        return rows


def read_metrics(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """metrics.csv as columns: name -> [epochs] float64."""
    with (workdir / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name]) for row in rows])
        for name in (rows[0] if rows else ())
    }


def write_summary(workdir: pathlib.Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json whole or not at all; refuses a value that is not finite."""
    require_finite(summary, SUMMARY)
    write_text(workdir / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def read_summary(workdir: pathlib.Path) -> dict[str, Any]:
    """summary.json of a finished run."""
    return json.loads((workdir / SUMMARY).read_text())


def write_params(path: pathlib.Path, params: Mapping[str, np.ndarray]) -> None:
    """Writes flat parameters, {"hidden_0/kernel": array}, whole or not at all.

    Raises:
      UserError: a tensor is not finite.
    """
    for name, array in params.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path.name}: {name} is not finite; nothing written")
    write_arrays(path, params)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, whole or not at all; their values are not looked at."""
    with whole(path) as partial:
        try:
            save_file(
                {name: np.asarray(array, order="C") for name, array in arrays.items()},
                partial,
            )
        except SafetensorError as error:
            if "I/O error" not in str(error):
                raise
            raise UserError(
                f"cannot write {path}: {str(error).rpartition('I/O error: ')[2]}; make "
                "room"
            ) from None


def read_arrays(path: str | pathlib.Path, flag: str) -> dict[str, np.ndarray]:
    """Arrays by name; `flag` is named in the error if the file cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{flag}: cannot read {path}: {error}") from None


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which then takes the place of `path`; if that fails nothing
    is left of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # of a full disk Python does not say which file
        raise


def require_finite(values: Mapping[str, Any], where: str) -> None:
    """Raises UserError on the first float of a (nested) mapping that is not finite."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            require_finite(value, f"{where}: {name}")
        elif isinstance(value, float | np.floating) and not math.isfinite(value):
            raise UserError(
                f"{where}: {name} is {value}; training diverged, try a smaller "
                "--learning_rate"
            )
