"""Why a recording and a port part: measured, tried, and else left unsaid.

What an optimizer did is measured on both sides and compared. What a forward pass did is
tried: a known difference of layers explains a step only if everything passes with it,
at no coarser noise than without it.
"""

from collections.abc import Sequence

from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement, first_failed
from parity.judging.verdict import Verdict
from parity.own import gradient_factor, optimizer_causes
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
        return optimizer_causes.explain(port, failed)
    if part == GRADIENTS:
        of_step = [m for m in failed if m.step == first.step]
        return gradient_factor.explain(port, first.step, of_step) or list(
            trials(port, first.step, measurements, threshold)
        )
    if part == RULES:
        return _of_rules(port, failed)
    return []


def _of_rules(port: Port, failed: Sequence[Measurement]) -> list[Explanation]:
    """A broken rule may be the trace of an optimizer that did something else."""
    learned = [m for m in failed if m.definition.part == UPDATE]
    rules = [m for m in failed if m.definition.part == RULES]
    first = first_failed(rules, 0, ())
    assert first, "called for a broken rule"
    if first.quantity == "weights_read" and first.step == 0:
        stage = port.ported.meta.get("zero_stage")
        if stage == 0 and all(m.step == 0 for m in rules):
            return [
                optimizer_causes.first_pass_before_masters(first),
                *(optimizer_causes.explain(port, learned) if learned else []),
            ]
    return []
