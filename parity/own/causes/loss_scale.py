"""Loss scales that move by other rules than DeepSpeed's: which rules they are."""

from collections.abc import Sequence

from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.own.equalities import LossScaleRules
from parity.own.port import Port
from parity.quantities import RULES

RULES_OF_OTHERS = {
    "scale_is_static": (
        "the loss scale never moves",
        "ds_config fp16.loss_scale other than 0",
    ),
    "no_hysteresis": (
        "the loss scale halves at the first overflow",
        "MISMATCHES D4; flax DynamicScale, DeepSpeed's stage 0",
    ),
    "scale_grows_early": (
        "the loss scale doubles on the window's last step, not on the one after",
        "MISMATCHES D4; torch.amp.GradScaler, flax DynamicScale",
    ),
}
"""Known difference -> what the recording stack did, and where it is documented."""


def explain(port: Port, failed: Sequence[Measurement]) -> list[Explanation]:
    """Returns the one set of rules by which all loss scales move; perhaps none.

    Args:
      port: the port and its recording.
      failed: loss scales that are not those of DeepSpeed's rules.
    """
    if not failed:
        return []
    names = [name for name in RULES_OF_OTHERS if _hold(port, name)]
    if len(names) != 1:
        return []
    text, reference = RULES_OF_OTHERS[names[0]]
    return [cause(names, text, reference, RULES, failed, True)]


def _hold(port: Port, name: str) -> bool:
    rules = LossScaleRules(port.ported.meta, name)
    return all(
        m.z == 0
        for number in range(len(port.ported))
        for m in rules.judge(number, port.ported.raw(number))
    )
