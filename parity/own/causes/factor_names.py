"""What factors on gradients mean where DeepSpeed scales losses (MISMATCHES D1, D3)."""

from collections.abc import Mapping

import numpy as np

from parity.measured.fit_types import Fit
from parity.measured.numbers import ratio
from parity.own.equalities import LossScaleRules
from parity.own.port import Port

CLOSE = 1e-2
"""Relative distance at which a factor is the expected one; others are 2 off."""


def names_of(
    port: Port, recorded: Mapping[str, Fit], own: Mapping[str, Fit]
) -> list[str]:
    """Returns the known differences that give every measured factor; perhaps none.

    Args:
      port: the port and its recording.
      recorded: fits of the recording; their counts are numbers of steps.
      own: fits of the port's optimizer.
    """
    growing = growing_steps(port)
    halved = {number: 0.5 for number in growing}
    if _lacks_scaling(port):
        once = {n: 1 / scale for n, scale in _scales(port).items()}
        found = _absolute(port, recorded)
        if _are(found, once):
            return ["loss_not_scaled"]
        if _are(found, {n: f * halved.get(n, 1.0) for n, f in once.items()}):
            return ["loss_not_scaled", "growth_step_halved"]
    elif growing and _are(_shares(port, recorded, own), halved):
        return ["growth_step_halved"]
    return []


def growing_steps(port: Port) -> list[int]:
    """Returns the steps at whose end DeepSpeed doubles the loss scale."""
    rules = LossScaleRules(port.ported.meta)
    found = []
    for number in range(len(port.ported)):
        step = port.ported.raw(number)
        if rules.grows(step):
            found.append(number)
        list(rules.judge(number, step))
    return found


def _lacks_scaling(port: Port) -> bool:
    meta = port.ported.meta
    return meta.get("zero_stage") == 0 and meta["precision"] == "fp16"


def _scales(port: Port) -> dict[int, float]:
    steps = range(len(port.ported))
    return {number: float(port.ported.raw(number)["loss_scale"]) for number in steps}


def _absolute(port: Port, fits: Mapping[str, Fit]) -> list[tuple[int, float]]:
    """Returns (step of the gradient, its factor) of every tensor and step."""
    return [
        (port.ported.source(leaf, number), factor.value)
        for leaf, fit in fits.items()
        for number, factor in zip(fit.counts, fit.factors)
        if factor.is_seen
    ]


def _shares(
    port: Port, recorded: Mapping[str, Fit], own: Mapping[str, Fit]
) -> list[tuple[int, float]]:
    """Returns (step of the gradient, recorded factor over one's own)."""
    found = []
    for leaf, fit in recorded.items():
        others = dict(zip(own[leaf].counts, own[leaf].factors))
        for number, factor in zip(fit.counts, fit.factors):
            share = ratio(factor, others[number]) if number in others else factor
            if share.is_seen:
                found.append((port.ported.source(leaf, number), share.value))
    return found


def _are(found: list[tuple[int, float]], expected: Mapping[int, float]) -> bool:
    """Returns True if factors are the expected ones; 1 where nothing is expected."""
    pairs = [(factor, expected.get(number, 1.0)) for number, factor in found]
    return bool(pairs) and all(np.isclose(a, b, rtol=CLOSE, atol=0) for a, b in pairs)
