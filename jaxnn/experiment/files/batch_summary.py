"""What a batch held, in few numbers: whether it is the same, and where it is not."""

import hashlib
from collections.abc import Iterator

import numpy as np

KINDS = ("inputs", "targets")


def batch_summary(inputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Returns "batch/inputs/..." and "batch/targets/..." of a trace.

    Args:
      inputs: [samples, ...] in the order of the batch, scaled, without padding.
      targets: [samples, ...] alike.
    """
    return {
        f"batch/{kind}/{name}": array
        for kind, rows in zip(KINDS, (inputs, targets))
        for name, array in summary(rows).items()
    }


def summary(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the digest of rows, and mean and largest magnitude of each column.

    Args:
      rows: [samples, ..., columns] or [samples].

    Returns:
      "digest" [32] uint8, "mean" and "largest" [columns] float64.
    """
    # The stacks hold the same numbers in integers of different widths.
    is_whole = rows.dtype.kind in "iub"
    same = np.ascontiguousarray(rows, "<i8" if is_whole else "<f4")
    digest = hashlib.sha256(same.tobytes()).digest()
    columns = same.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1)
    columns = columns.astype(np.float64)
    return {
        "digest": np.frombuffer(digest, np.uint8),
        "mean": columns.mean(axis=0),
        "largest": np.abs(columns).max(axis=0),
    }


def differences(
    recorded: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> Iterator[tuple[float, int, str]]:
    """Yields (relative difference, column, statistic) where two summaries differ.

    Args:
      recorded: as from `summary`.
      expected: of as many columns.
    """
    for name in ("largest", "mean"):
        # A mean near zero is compared by the size of its column.
        size = np.maximum(np.abs(expected["largest"]), np.finfo(np.float64).tiny)
        share = np.abs(recorded[name] - expected[name]) / size
        for column in np.flatnonzero(recorded[name] != expected[name]):
            yield float(share[column]), int(column), name
