"""Why a recording and a port part: measured, tried, and else left unsaid.

What an optimizer did is measured on both sides and compared. What a forward pass did is
tried: a known difference of layers explains a step only if everything passes with it,
at no coarser noise than without it.
"""

from collections.abc import Sequence

from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.judging.verdict import Verdict
from parity.own import (
    gradient_factor,
    lost_path,
    optimizer_causes,
    running_statistics,
    unused,
)
from parity.own.cause import joined
from parity.own.layer_trials import trials
from parity.own.port import Port
from parity.quantities import GRADIENTS, RULES, UPDATE


def explain(
    port: Port,
    measurements: Sequence[Measurement],
    verdict: Verdict,
    threshold: float,
) -> list[Explanation]:
    """Returns what explains the first divergence, best first; perhaps nothing.

    Args:
      port: the port and its recording.
      measurements: of every step.
      verdict: that they amount to.
      threshold: largest z that passes.
    """
    first = verdict.first_divergence
    if first is None:
        return []
    part = first.definition.part
    failed = [m for m in measurements if m.z > threshold]
    if part == UPDATE:
        return _of_updates(port, failed, threshold)
    if first.quantity == "batch_stats":
        return running_statistics.explain(port, failed)
    if part == GRADIENTS:
        of_step = [m for m in failed if m.step == first.step]
        return (
            gradient_factor.explain(port, first.step, of_step)
            or lost_path.explain(port, first.step, of_step)
            or list(trials(port, first.step, measurements, threshold))
        )
    if part == RULES:
        return _of_rules(port, failed, threshold)
    return []


def _of_updates(
    port: Port, failed: Sequence[Measurement], threshold: float
) -> list[Explanation]:
    found = unused.explain(port, failed, threshold)
    return found or optimizer_causes.explain(port, failed)


def _of_rules(
    port: Port, failed: Sequence[Measurement], threshold: float
) -> list[Explanation]:
    """Returns what explains weights that a first pass read (D2), and the rest with it.

    Other broken rules are said as they are: they need no cause.
    """
    rules = [m for m in failed if m.definition.part == RULES]
    others = [m for m in failed if m not in rules]
    of_first_pass = all(m.quantity == "weights_read" and m.step == 0 for m in rules)
    if not of_first_pass or port.ported.meta.get("zero_stage") != 0:
        return []
    found = [optimizer_causes.read_before_masters(rules)]
    if others:
        found += _of_updates(port, others, threshold)
    of_updates = all(m.definition.part == UPDATE for m in others)
    is_whole = not others or (of_updates and len(found) == 2)
    return [joined(found, is_whole)]
