"""What a run ended with, as flat arrays: from its workdir, or as its workdir would have
it."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts

RESTATED = ("_percent", "perplexity")
"""How metrics end that follow from another one; they are left out."""

RunEnd = dict[str, np.ndarray]
"""float64 "params/NAME", "batch_stats/NAME", "train_loss", "test_loss", "steps",
"skipped_steps", "final/METRIC"."""


def outcome(
    params: Mapping[str, np.ndarray],
    batch_stats: Mapping[str, np.ndarray],
    summary: Mapping[str, Any],
) -> RunEnd:
    """One run's outcome.

    Args:
      params: flat master parameters.
      batch_stats: flat running statistics.
      summary: as in summary.json.
    """
    found = {
        name: summary[name]
        for name in ("train_loss", "test_loss", "steps", "skipped_steps")
    }
    found |= {
        f"final/{name}": value
        for name, value in summary["final"].items()
        if isinstance(value, float) and not name.endswith(RESTATED)
    }
    found |= {f"params/{name}": array for name, array in params.items()}
    found |= {f"batch_stats/{name}": array for name, array in batch_stats.items()}
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def read(workdir: pathlib.Path) -> RunEnd:
    """What a finished run ended with, from its workdir.

    Raises:
      UserError: a file is missing, cannot be read or lacks something.
    """
    try:
        summary = artifacts.read_summary(workdir)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot judge: {workdir / artifacts.SUMMARY}: {error}"
        ) from None
    params = artifacts.read_arrays(workdir / artifacts.PARAMS, "cannot judge")
    stats = workdir / artifacts.BATCH_STATS
    batch_stats = artifacts.read_arrays(stats, "cannot judge") if stats.exists() else {}
    try:
        return outcome(params, batch_stats, summary)
    except KeyError as error:
        raise UserError(
            f"cannot judge: {workdir / artifacts.SUMMARY} lacks {error}; the program "
            "that trains has to write it"
        ) from None
