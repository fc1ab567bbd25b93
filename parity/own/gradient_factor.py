"""Recorded gradients that are a port's times one number, or zero."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.measured.difference import factor_text
from parity.noise import FLOAT64
from parity.own.port import Port
from parity.own.replay import PortReplay
from parity.quantities import GRADIENTS

CLOSE = 1e-3
"""Relative spread within which the factors of all tensors are one number."""
RESIDUAL = 1e-2
"""Part of a gradient that one factor may leave; rounding in 16 bits leaves less."""


def explain(
    port: Port, number: int, failed: Sequence[Measurement]
) -> list[Explanation]:
    """Returns what one factor, or gradients of zero, explain of a step.

    Args:
      port: the port and its recording.
      number: index of the step.
      failed: its measurements that failed.
    """
    if any(m.quantity == "activations" for m in failed):
        return []
    replay = PortReplay(port.ported, number, port.objective, None)
    exact = replay.gradients(replay.inputs(number), FLOAT64)
    recorded = port.ported.read(number)
    grads, own = select(recorded, "grads"), select(exact, "grads")
    zero = [name for name, grad in grads.items() if not grad.any() and own[name].any()]
    wrong = {m.tensor for m in failed if m.quantity == "grads"}
    if wrong and wrong <= set(zero):
        text = f"the recorded gradient of {_listed(zero)} is zero, yours is not"
        return [_cause("zero_gradients", text, failed, True)]
    factor = _common_factor(grads, own)
    if factor is None or abs(factor - 1) < CLOSE:
        return []
    losses = float(recorded["loss"]) / float(exact["loss"])
    both = bool(np.isclose(losses, factor, rtol=CLOSE))
    whose = "loss and gradients are" if both else "gradients are"
    covered = both or not any(m.quantity == "loss" for m in failed)
    text = f"the recorded {whose} {factor_text(factor)} times yours, on all tensors"
    return [_cause("gradient_factor", text + _guess(port, factor), failed, covered)]


def _common_factor(
    grads: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]
) -> float | None:
    """Returns the factor that all tensors share; None if they do not."""
    sizes, factors = [], []
    for name, grad in grads.items():
        size = float(np.sum(own[name] ** 2))
        if size:
            factors.append(float(np.sum(grad * own[name])) / size)
            sizes.append(size)
    # Tensors of tiny gradients are rounding alone: those that matter decide.
    heavy = [f for f, s in zip(factors, sizes) if s >= 1e-6 * max(sizes, default=0)]
    if not heavy or np.ptp(heavy) > CLOSE * abs(np.median(heavy)):
        return None
    factor = float(np.median(heavy))
    left = sum(float(np.sum((grads[n] - factor * own[n]) ** 2)) for n in grads)
    return factor if left <= (RESIDUAL * factor) ** 2 * sum(sizes) else None


def _guess(port: Port, factor: float) -> str:
    """Returns which count of the recording the factor is, where it is one."""
    meta = port.ported.meta
    counts = {
        "number of accumulation steps": meta.get("accumulation_steps"),
        "number of ranks": meta.get("world_size"),
        "number of passes in a step": meta.get("passes"),
        "loss scale": float(port.ported.raw(0)["loss_scale"]),
    }
    for what, count in counts.items():
        if not count or count == 1:
            continue
        if np.isclose(factor, count, rtol=CLOSE):
            return f": the {what}"
        if np.isclose(factor, 1 / count, rtol=CLOSE):
            return f": one over the {what}"
    return ""


def _cause(
    name: str, text: str, failed: Sequence[Measurement], explains: bool
) -> Explanation:
    how = "measured from the recorded gradients"
    return cause([name], text, how, GRADIENTS, failed, explains)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
