"""Whether a step was given the inputs and targets of its flags and sample ids."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import batch_summary
from jaxnn.experiment.files.batch_summary import KINDS
from jaxnn.experiment.files.trace import select
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import UNEQUAL, Measurement
from parity.quantities import RULES
from parity.replay import scaled

HOW = "digests of the recorded batches"


def judge_batch(
    number: int, step: Mapping[str, np.ndarray], data: Dataset
) -> list[Measurement]:
    """Compares what a step was given with the data set, to the bit.

    Args:
      number: step index, from 0.
      step: recorded tensors by name; without digests nothing is compared, as in traces
        that are older than these.
      data: data set of the flags.
    """
    given = [kind for kind in KINDS if f"batch/{kind}/digest" in step]
    if not given:
        return []
    ids = step["batch/ids"]
    inputs = scaled(data, data.train_inputs[ids])
    wanted = batch_summary.batch_summary(inputs, data.train_targets[ids])
    return [_compared(number, kind, step, wanted, data) for kind in given]


def explain_batch(failed: Measurement) -> list[Explanation]:
    """Returns the explanation of a batch that holds other numbers."""
    text = f"what a step makes of other {failed.quantity} is not judged beyond that"
    return [cause([failed.quantity], text, HOW, RULES, [failed], explains=False)]


def _compared(
    number: int,
    kind: str,
    step: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    data: Dataset,
) -> Measurement:
    recorded, expected = (select(flat, f"batch/{kind}") for flat in (step, wanted))
    if np.array_equal(recorded["digest"], expected["digest"]):
        return Measurement(number, kind, "", 0.0, 0.0)
    names = data.feature_names if kind == "inputs" else ()
    gap = f"the {kind} differ: {_where(recorded, expected, names)}"
    return Measurement(number, kind, "", UNEQUAL, 0.0, gap=gap)


def _where(
    recorded: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    names: Sequence[str],
) -> str:
    """Returns the column that differs most, with both figures."""
    columns = len(expected["mean"])
    if len(recorded["mean"]) != columns:
        return f"{len(recorded['mean'])} columns, {columns} expected"
    found = list(batch_summary.differences(recorded, expected))
    if not found:
        return "other numbers, or in other places, of the same mean and largest"
    _, column, statistic = max(found)
    name = f" ({names[column]})" if len(names) == columns else ""
    here, there = _figures(recorded[statistic][column], expected[statistic][column])
    others = len({column for _, column, _ in found}) - 1
    more = f"; and {others} more of {columns} columns" if others else ""
    return f"column {column}{name}: {statistic} {here} against {there}{more}"


def _figures(a: float, b: float) -> tuple[str, str]:
    """Returns both numbers with the digits that tell them apart."""
    short = f"{a:.4g}", f"{b:.4g}"
    return short if short[0] != short[1] else (f"{a:.17g}", f"{b:.17g}")
