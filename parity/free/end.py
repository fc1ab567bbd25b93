"""Outcome of a whole run as flat arrays, in memory or read from a workdir."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts

RESTATED = ("_percent", "perplexity")
"""Suffixes of metrics that restate another one and are left out."""

RunEnd = dict[str, np.ndarray]
"""float64 "params/NAME", "batch_stats/NAME", "train_loss", "test_loss", "steps",
"skipped_steps", "final/METRIC"."""


def outcome(
    params: Mapping[str, np.ndarray],
    batch_stats: Mapping[str, np.ndarray],
    summary: Mapping[str, Any],
) -> RunEnd:
    """Collects the outcome of one run.

    Args:
      params: flat master parameters.
      batch_stats: flat running statistics.
      summary: entries of summary.json.

    Raises:
      KeyError: the summary lacks an entry.
    """
    found = {
        name: summary[name]
        for name in ("train_loss", "test_loss", "steps", "skipped_steps")
    }
    # Metrics are floats; the counts and class names among them are left out.
    found |= {
        f"final/{name}": value
        for name, value in summary["final"].items()
        if isinstance(value, float) and not name.endswith(RESTATED)
    }
    found |= {f"params/{name}": array for name, array in params.items()}
    found |= {f"batch_stats/{name}": array for name, array in batch_stats.items()}
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def read(workdir: pathlib.Path) -> RunEnd:
    """Reads the outcome of a finished run from its workdir.

    Raises:
      UserError: a file is missing, unreadable or incomplete.
    """
    try:
        summary = artifacts.read_summary(workdir)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot judge: {workdir / artifacts.SUMMARY}: {error}"
        ) from None
    params = artifacts.read_arrays(workdir / artifacts.PARAMS, "cannot judge")

    # Written only by networks with batch normalization.
    stats = workdir / artifacts.BATCH_STATS
    batch_stats = artifacts.read_arrays(stats, "cannot judge") if stats.exists() else {}

    try:
        return outcome(params, batch_stats, summary)
    except KeyError as error:
        raise UserError(
            f"cannot judge: {workdir / artifacts.SUMMARY} lacks {error}; the training "
            "program must write it"
        ) from None
