"""Why a recording and a port part: measured, tried, and else left unsaid.

What an optimizer did is measured on both sides and compared. What a forward pass did is
tried: a known difference explains a step only if everything passes with it, at no
coarser noise than without it. Each part of a step starts from what was recorded, so
that no fault spreads into another: the whole is explained where each part is.
"""

from collections.abc import Sequence

from parity.judging.cause import joined
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.own.causes import (
    gradient_trials,
    half_masters,
    optimizer,
    rules,
    running_statistics,
    unused,
)
from parity.own.causes.update import judge_updates
from parity.own.port import Port
from parity.quantities import GRADIENTS, RULES, UPDATE


def explain(
    port: Port, measurements: Sequence[Measurement], threshold: float
) -> list[Explanation]:
    """Returns what explains a divergence, joined into one; perhaps nothing.

    Args:
      port: the port and its recording.
      measurements: of every step.
      threshold: largest z that passes.
    """
    failed = [m for m in measurements if m.z > threshold]
    of_part = {
        part: [m for m in failed if m.definition.part == part]
        for part in (RULES, GRADIENTS, UPDATE)
    }
    found, is_whole = rules.explain(port, of_part[RULES])
    if of_part[GRADIENTS]:
        of_gradients = _of_gradients(port, of_part[GRADIENTS], measurements, threshold)
        found += of_gradients
        is_whole &= bool(of_gradients)
    if of_part[UPDATE] and not _follow(port, of_part, threshold):
        of_updates = _of_updates(port, of_part[UPDATE], threshold)
        found += of_updates
        is_whole &= bool(of_updates)
    return [joined(found, is_whole)] if found else []


def _of_gradients(
    port: Port,
    failed: Sequence[Measurement],
    measurements: Sequence[Measurement],
    threshold: float,
) -> list[Explanation]:
    if all(m.quantity == "batch_stats" for m in failed):
        return running_statistics.explain(port, failed)
    return gradient_trials.explain(port, measurements, threshold)


def _of_updates(
    port: Port, failed: Sequence[Measurement], threshold: float
) -> list[Explanation]:
    return (
        unused.explain(port, failed, threshold)
        or half_masters.explain(port, failed, threshold)
        or optimizer.explain(port, failed)
    )


def _follow(port: Port, failed: dict[str, list[Measurement]], threshold: float) -> bool:
    """Returns True if updates are others only as moments were set to zero before."""
    forgotten = rules.forgotten(port, failed[RULES])
    if not forgotten:
        return False
    again = judge_updates(port, threshold, forgotten)
    return all(m.z <= threshold for m in again)
