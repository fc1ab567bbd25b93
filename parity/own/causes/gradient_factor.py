"""Recorded gradients that are a port's times one number, or zero."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.inputs import Inputs
from parity.judging.measure import Measurement
from parity.measured.difference import factor_text, listed
from parity.noise import FLOAT64, Tensors
from parity.own.port import Port
from parity.own.replay import PortReplay

CLOSE = 1e-3
"""Relative spread within which the factors of all tensors are one number."""
RESIDUAL = 1e-2
"""Part of a gradient that one factor may leave; rounding in 16 bits leaves less."""


class Factors(NamedTuple):
    """What multiplied a step's loss and gradients.

    Attributes:
      name: of the cause.
      text: what the recording stack did.
      of_tensors: leaf -> factor of its gradient.
      of_loss: factor of the loss.
    """

    name: str
    text: str
    of_tensors: dict[str, float]
    of_loss: float


class Multiplied(PortReplay):
    """A replay whose loss and gradients are multiplied."""

    def __init__(self, port: Port, number: int, factors: Factors):
        super().__init__(
            port.ported, number, port.objective, None, port.activations(number)
        )
        by_name = {f"grads/{n}": f for n, f in factors.of_tensors.items()}
        self._factors = by_name | {"loss": factors.of_loss}

    def _gradients(
        self, inputs: Inputs, dtype: np.dtype, nudge: tuple[int, np.dtype] | None
    ) -> Tensors:
        found = super()._gradients(inputs, dtype, nudge)
        return {n: array * self._factors.get(n, 1.0) for n, array in found.items()}


def measured(port: Port, number: int, failed: Sequence[Measurement]) -> Factors | None:
    """Returns the factor, or the gradients of zero, that a step shows; None if neither.

    Args:
      port: the port and its recording.
      number: index of the step.
      failed: measurements of its gradients that failed.
    """
    if any(m.quantity == "activations" for m in failed):
        return None
    replay = PortReplay(port.ported, number, port.objective, None)
    exact = replay.gradients(replay.inputs(number), FLOAT64)
    recorded = port.ported.read(number)
    grads, own = select(recorded, "grads"), select(exact, "grads")
    zero = [name for name, grad in grads.items() if not grad.any() and own[name].any()]
    wrong = {m.tensor for m in failed if m.quantity == "grads"}
    if wrong and wrong <= set(zero):
        text = f"the recorded gradient of {listed(zero)} is zero, yours is not"
        return Factors("zero_gradients", text, dict.fromkeys(zero, 0.0), 1.0)
    factor = _common_factor(grads, own)
    if factor is None or abs(factor - 1) < CLOSE:
        return None
    losses = float(recorded["loss"]) / float(exact["loss"])
    both = bool(np.isclose(losses, factor, rtol=CLOSE))
    whose = "loss and gradients are" if both else "gradients are"
    text = f"the recorded {whose} {factor_text(factor)} times yours, on all tensors"
    return Factors(
        "gradient_factor",
        text + _guess(port, factor),
        dict.fromkeys(grads, factor),
        factor if both else 1.0,
    )


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
    factor = float(np.sum(np.multiply(factors, sizes)) / np.sum(sizes))
    left = sum(float(np.sum((grads[n] - factor * own[n]) ** 2)) for n in grads)
    return factor if left <= (RESIDUAL * factor) ** 2 * sum(sizes) else None


def _guess(port: Port, factor: float) -> str:
    """Returns which counts of the recording the factor is, where it is one."""
    meta = port.ported.meta
    counts = {
        "number of accumulation steps": meta.get("accumulation_steps"),
        "number of ranks": meta.get("world_size"),
        "number of passes in a step": meta.get("passes"),
        "number of rows in a batch": _rows(port),
        "loss scale": float(port.ported.raw(0)["loss_scale"]),
    }
    whole, parts = [], []
    for what, count in counts.items():
        if not count or count == 1:
            continue
        whole += [what] if np.isclose(factor, count, rtol=CLOSE) else []
        parts += [what] if np.isclose(factor, 1 / count, rtol=CLOSE) else []
    if whole:
        return f": the {' or the '.join(whole)}"
    return f": one over the {' or the '.join(parts)}" if parts else ""


def _rows(port: Port) -> int:
    """Returns the rows that all arrays of a pass share; 0 if they do not."""
    inputs = port.ported.passes(0)[0].inputs.values()
    rows = {array.shape[0] for array in inputs if array.ndim}
    return rows.pop() if len(rows) == 1 else 0
