"""Why a recording learned nothing: each of its steps was skipped by an overflow."""

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.own.equalities import LossScaleRules
from parity.own.port import Port
from parity.own.replay import PortReplay

SMALLEST = 2.0**-24
"""Loss scale below which nothing is tried: FP16 holds nothing smaller."""


def refuse_skipped(port: Port) -> None:
    """Raises UserError if every step was skipped, and says what the loss scale does."""
    steps = range(len(port.ported))
    scales = [float(port.ported.raw(number)["loss_scale"]) for number in steps]
    if not all(port.ported.raw(number)["skipped"] for number in steps):
        return
    raise UserError(
        f"cannot judge: each of {len(steps)} steps was skipped by an overflow, so "
        f"nothing was learned; {_outlook(port, scales)}"
    )


def _outlook(port: Port, scales: list[float]) -> str:
    """Returns where the loss scale goes, and when gradients are finite."""
    last = scales[-1]
    finite = _finite_scale(port, last)
    if finite is None:
        return (
            f"the port's gradients are finite under no loss scale from {last:g} down: "
            "something else overflows"
        )
    more = _overflows_until(port, scales, finite)
    if more is None:
        return (
            f"the loss scale stays at {last:g}: it never falls to {finite:g}, where "
            "the port's gradients are finite; let it move (fp16.loss_scale 0) or set "
            "a smaller one"
        )
    when = f"after {more} more overflows" if more else "at the next step"
    return (
        f"the loss scale falls and has come to {last:g}; the port's gradients are "
        f"finite at {finite:g}, {when}: record more steps, or start from a smaller "
        "scale (fp16.initial_scale_power)"
    )


def _finite_scale(port: Port, scale: float) -> float | None:
    """Returns the largest scale, halved from a given one, without an overflow."""
    number = len(port.ported) - 1
    replay = PortReplay(port.ported, number, port.objective, None)
    inputs = replay.inputs(number)
    while scale >= SMALLEST:
        scaled = inputs._replace(scale=np.float32(scale))
        found = replay.gradients(scaled, replay.compute)
        grads = [array for name, array in found.items() if name.startswith("grads/")]
        if all(np.isfinite(grad).all() for grad in grads):
            return scale
        scale /= 2
    return None


def _overflows_until(port: Port, scales: list[float], finite: float) -> int | None:
    """Returns how many overflows more bring the scale down; None if it stays."""
    rules = LossScaleRules(port.ported.meta)
    if rules.are_known:
        for number in range(len(port.ported)):
            list(rules.judge(number, port.ported.raw(number)))
        return rules.overflows_until(finite)
    # Of an unknown scaler only this is seen: whether it halves.
    if not min(scales) < scales[0]:
        return None
    return max(0, round(float(np.log2(scales[-1] / finite))) - 1)
