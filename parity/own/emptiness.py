"""Refuses a parity that means nothing, because nothing could have been found."""

from collections.abc import Sequence
from statistics import median

from jaxnn.experiment.errors import UserError
from parity.judging.measure import Measurement
from parity.judging.verdict import Verdict

WORST_DETECTABLE = 0.1
"""Relative error that a step must show, in its loss and in the median gradient."""


def refuse_empty(
    measurements: Sequence[Measurement], verdict: Verdict, order: Sequence[str]
) -> None:
    """Raises UserError at a parity whose noise hides errors of a tenth.

    A single gradient may be all rounding: that of a bias before a normalization is zero
    in exact arithmetic. So the median gradient counts.
    """
    if not verdict.is_parity:
        return
    for step in range(verdict.steps):
        of_step = [m for m in measurements if m.step == step]
        worst = {
            quantity: median(m.detectable for m in of_step if m.quantity == quantity)
            for quantity in ("loss", "grads")
            if any(m.quantity == quantity for m in of_step)
        }
        if any(found > WORST_DETECTABLE for found in worst.values()):
            raise UserError(_sentence(step, of_step, worst, order))


def _sentence(
    step: int,
    measurements: Sequence[Measurement],
    worst: dict[str, float],
    order: Sequence[str],
) -> str:
    lost = {
        m.tensor
        for m in measurements
        if m.quantity == "activations" and m.detectable > WORST_DETECTABLE
    }
    layer = next((name for name in order if name in lost), "its loss")
    return (
        f"could not judge: step {step} loses its digits at {layer}: errors below "
        f"{max(worst.values()):.0%} would not be seen; compute there in float32"
    )
