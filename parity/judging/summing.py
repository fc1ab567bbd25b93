"""What adding microbatches up in the compute dtype costs, short of a divergence."""

from collections.abc import Iterable

import numpy as np

from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from parity.inputs import Inputs
from parity.judging.replays import Replays
from parity.judging.step import Recording
from parity.noise import FLOAT64, Tensors, norm
from parity.replay import Replay
from parity.semantics import SWITCHES

SWITCH = SWITCHES["accumulated_in_half"]
FEW = 16
"""Microbatches whose sum loses too little to look for it."""
WORTH_SAYING = 0.01
"""Of a gradient's norm."""


def lost_by_summing(
    replays: Replays, recording: Recording, numbers: Iterable[int]
) -> str:
    """Returns by how much a recording's gradients are off for being summed in half.

    Args:
      replays: replays of the experiment that was recorded.
      recording: its trace.
      numbers: its steps; the first with an update is looked at.

    Returns:
      A sentence on the tensor that loses most; empty if none loses 1 %, or not for
      this reason.
    """
    if not _may_lose(replays.experiment):
        return ""
    for number in numbers:
        step = recording.read(number)
        if not step["skipped"]:
            return _lost(replays, number, step)
    return ""


def _may_lose(experiment: Experiment) -> bool:
    return SWITCH.applies(experiment) and experiment.accumulation_steps >= FEW


def _lost(replays: Replays, number: int, step: Tensors) -> str:
    recorded = select(step, "grads")
    replay = replays.under(())
    inputs = replay.inputs(number, step)
    plain = _gradients(replay, inputs, replay.compute)
    lost = {name: norm(recorded[name] - plain[name]) for name in recorded}
    sizes = {name: norm(array) or np.inf for name, array in plain.items()}
    worst = max(lost, key=lambda name: lost[name] / sizes[name])
    if lost[worst] < WORTH_SAYING * sizes[worst]:
        return ""
    summed = _gradients(replays.under((SWITCH,)), inputs, replay.compute)
    if norm(recorded[worst] - summed[worst]) > lost[worst] / 2:
        return ""
    exact = _gradients(replay, inputs, FLOAT64)[worst]
    off = [norm(array[worst] - exact) / norm(exact) for array in (recorded, plain)]
    return (
        f"{replays.experiment.accumulation_steps} microbatches are added in "
        f"{replays.experiment.precision}: gradients {worst} of step {number} are "
        f"{off[0]:.1%} off, {off[1]:.1%} if added in float32 (MISMATCHES D23)"
    )


def _gradients(replay: Replay, inputs: Inputs, dtype: np.dtype) -> Tensors:
    return select(replay.gradients(inputs, dtype), "grads")
