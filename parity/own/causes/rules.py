"""Why equalities of a recording are broken: what began a step is not what it should.

Not every broken equality has a cause: a count is said as it is.
"""

from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.measured.difference import listed
from parity.own.causes import carried, loss_scale
from parity.own.causes.update import begins_anew
from parity.own.port import Port
from parity.quantities import RULES

INIT_STEP = "MISMATCHES D2; DeepSpeed runtime/fp16/fused_optimizer.py"


def explain(
    port: Port, failed: Sequence[Measurement]
) -> tuple[list[Explanation], bool]:
    """Returns what explains broken equalities, and whether none is left.

    Args:
      port: the port and its recording.
      failed: equalities that are broken.
    """
    state = [m for m in failed if m.quantity == "params"]
    read = [m for m in failed if m.quantity == "weights_read"]
    scales = [m for m in failed if m.quantity == "loss_scale"]
    reset = forgotten(port, failed)
    others = [
        m
        for m in failed
        if m not in state + read + scales and not _is_restart(port, m, reset)
    ]
    of_state = carried.explain(port.ported, state)
    of_reading = _of_reading(port, read)
    of_scales = loss_scale.explain(port, scales)
    is_whole = bool(read) == bool(of_reading) and bool(scales) == bool(of_scales)
    return of_state + of_reading + of_scales, is_whole and not others


def forgotten(port: Port, failed: Sequence[Measurement]) -> list[int]:
    """Returns the steps before which all moments that were there became zero."""
    moved = [m for m in failed if m.tensor.startswith("moments/")]
    return [
        number
        for number in sorted({m.step for m in moved})
        if not any(a.any() for a in select(port.ported.raw(number), "moments").values())
    ]


def _is_restart(port: Port, m: Measurement, reset: Sequence[int]) -> bool:
    """An optimizer that is built again counts from 0 again."""
    return m.quantity == "optimizer_step" and any(
        number in reset and begins_anew(port.ported, number)
        for number in (m.step, m.step - 1)
    )


def _of_reading(port: Port, read: Sequence[Measurement]) -> list[Explanation]:
    """Returns why passes read other weights than the masters, rounded."""
    if not read:
        return []
    if all(m.step == 0 for m in read):
        is_stage_0 = port.ported.meta.get("zero_stage") == 0
        return [read_before_masters(read)] if is_stage_0 else []
    if all(_is_of_step_before(port, m) for m in read):
        text = (
            "forward and backward use the parameters of the step before: "
            f"{listed(list(dict.fromkeys(m.tensor for m in read)))}"
        )
        how = "half-precision copies that are not refreshed from the masters"
        return [cause(["stale_parameters"], text, how, RULES, read, True)]
    return []


def read_before_masters(failed: Sequence[Measurement]) -> Explanation:
    """Returns the explanation of a first pass that read other weights (D2)."""
    text = (
        "an update of zero gradients before training moved the masters, and the first "
        "forward pass read the weights from before it"
    )
    return cause(["init_step_counted"], text, INIT_STEP, RULES, failed, True)


def _is_of_step_before(port: Port, m: Measurement) -> bool:
    if not m.step:
        return False
    read = port.ported.raw(m.step)[f"forward/{m.tensor}"]
    before = port.ported.raw(m.step - 1)[f"params/{m.tensor}"]
    return np.array_equal(read, before.astype(read.dtype))
