"""Measures the tensors of one step against a replay of it, half by half.

Both halves start from what was recorded: loss and gradients from the recorded
parameters, moments and parameters from the recorded gradients. So a fault in one half
does not show in the other.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.experiment.files.trace import select
from parity.inputs import Inputs
from parity.judging.measure import THRESHOLD, Measurement, equal, measure
from parity.judging.rounds import CLEARLY, Rounds, Units
from parity.noise import (
    DRAWS,
    FLOAT32,
    MORE_DRAWS,
    SOME_DRAWS,
    Distances,
    Kinks,
    Noise,
    Tensors,
)
from parity.quantities import OF_KIND
from parity.rules import CARRIED

FORWARD = ("activations", "loss")
"""Quantities that a kink does not move by more than rounding."""
KEPT = ("params", "moments")
"""Kinds of state that a skipped step must leave as they are."""


class StepReplay(Protocol):
    """A step that can be taken again from recorded inputs: jaxnn's, or one's own.

    Attributes:
      compute: dtype of the forward and backward pass.
      may_skip: an overflow skips the step (FP16).
      has_kinks: rounding may make a gradient jump.
      has_jumps: rounding may make the output of a layer jump.
    """

    compute: np.dtype
    may_skip: bool
    has_kinks: bool
    has_jumps: bool

    def gradients(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns the forward and backward pass's tensors, computed in `dtype`."""
        ...

    def update(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns the optimizer's tensors, computed in `dtype`."""
        ...

    def gradients_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `gradients` in the compute dtype from float64."""
        ...

    def update_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `update` in float32 from float64."""
        ...

    def nudging(self, inputs: Inputs) -> Callable[[int], Distances]:
        """Returns seed -> distances of `gradients` under moved layer outputs."""
        ...


def judge_gradients(
    replay: StepReplay,
    number: int,
    step: Tensors,
    inputs: Inputs,
    replayed: Tensors,
    rounds: Rounds,
) -> list[Measurement]:
    """Measures the forward and backward pass: all its tensors and the skip decision.

    Args:
      replay: the replay of the step.
      number: step index, from 0.
      step: recorded tensors by name.
      inputs: what the replay starts from.
      replayed: tensors of the replay, float64.
      rounds: how many draws of noise to measure with.
    """
    rounds = rounds if replay.has_kinks else rounds.without_kinks()
    noise = Noise(
        lambda moved: replay.gradients_rounding(inputs._replace(compute=moved)),
        inputs.compute,
        number,
    )

    def compare(units: Units, closely: bool) -> Iterator[Measurement]:
        return _compared(
            replay, number, step, replayed, units, rounds.threshold, closely
        )

    def units(draws: int) -> Units:
        if draws < MORE_DRAWS:
            return noise.units(draws)

        def may_be_a_kink(measured: Sequence[Measurement]) -> bool:
            is_forward = _fails_forward(measured, rounds.threshold)
            return replay.has_kinks and (replay.has_jumps or not is_forward)

        kinks = Kinks(replay.nudging(inputs))
        return _units_near_kinks(kinks, noise, compare, rounds, may_be_a_kink)

    decision = _skip_decision(replay, number, step, replayed)
    norm = [] if step["skipped"] else [judge_norm(number, step, rounds.threshold)]
    return [decision, *rounds.run(units, compare), *norm]


def judge_forward(
    replay: StepReplay, number: int, step: Tensors, replayed: Tensors
) -> list[Measurement]:
    """Measures in ulps what a replay of the forward pass alone has made."""
    return list(_compared(replay, number, step, replayed, {}))


def _compared(
    replay: StepReplay,
    number: int,
    step: Tensors,
    replayed: Tensors,
    units: Units,
    threshold: float = THRESHOLD,
    closely: bool = False,
) -> Iterator[Measurement]:
    for name in _judged_names(step, replayed):
        recorded = _recorded(step, name, number, replayed[name].shape)
        if not _is_lost_to_overflow(step, name, recorded, replayed[name]):
            yield _measure_gradient(
                replay,
                number,
                step,
                name,
                replayed[name],
                units.get(name, 0.0),
                threshold,
                closely,
            )


def _judged_names(step: Tensors, replayed: Tensors) -> list[str]:
    """Names to compare; a trace may do without activations."""
    has_activations = any(name.startswith("activations/") for name in step)
    return [
        name
        for name in replayed
        if has_activations or not name.startswith("activations/")
    ]


def _is_lost_to_overflow(
    step: Tensors, name: str, recorded: np.ndarray, replayed: np.ndarray
) -> bool:
    """Returns True for a tensor that a skipped step leaves nothing to compare of."""
    if not step["skipped"]:
        return False
    both_overflow = not (np.isfinite(recorded).all() or np.isfinite(replayed).all())
    return name.startswith("grads/") or both_overflow


def _measure_gradient(
    replay: StepReplay,
    number: int,
    step: Tensors,
    name: str,
    replayed: np.ndarray,
    unit: float,
    threshold: float,
    closely: bool,
) -> Measurement:
    kind, _, tensor = name.partition("/")
    quantity = OF_KIND[kind]
    # Gradients left the backward pass multiplied by the loss scale.
    scale = float(step["loss_scale"]) if kind == "grads" else 1.0
    return measure(
        number,
        quantity.name,
        tensor,
        step[name],
        replayed,
        unit,
        FLOAT32 if quantity.is_float32 else replay.compute,
        scale,
        threshold,
        closely,
    )


def _units_near_kinks(
    kinks: Kinks,
    noise: Noise,
    compare: Callable[[Units, bool], Iterator[Measurement]],
    rounds: Rounds,
    may_be_a_kink: Callable[[Sequence[Measurement]], bool],
) -> Units:
    """Noise units that also count which side of a kink each unit falls on.

    What passes by enough with some draws passes with all of them, as in `Rounds`: a
    quarter of the draws settles most steps. So it does where no kink can be the cause:
    without one the draws of a tensor are alike.
    """
    for draws in (SOME_DRAWS, MORE_DRAWS):
        units = kinks.larger(noise.units(DRAWS), draws)
        measured = list(compare(units, True))
        share = math.sqrt(draws / MORE_DRAWS)
        if all(m.z <= rounds.threshold * share for m in measured):
            return units
        if not may_be_a_kink(measured):
            break
    return kinks.larger(noise.units(draws), draws)


def _fails_forward(measurements: Sequence[Measurement], threshold: float) -> bool:
    """Returns True if the forward pass fails clearly: there a kink moves nothing."""
    return any(
        m.quantity in FORWARD and m.z > CLEARLY * threshold for m in measurements
    )


def _skip_decision(
    replay: StepReplay, number: int, step: Tensors, replayed: Tensors
) -> Measurement:
    gradients = (replayed[name] for name in replayed if name.startswith("grads/"))
    overflow = not all(np.isfinite(gradient).all() for gradient in gradients)
    expected = np.bool_(overflow and replay.may_skip)
    return equal(number, "skipped", "", step["skipped"], expected)


def judge_update(
    replay: StepReplay, number: int, step: Tensors, inputs: Inputs, rounds: Rounds
) -> list[Measurement]:
    """Measures the optimizer's half of a step, from the recorded gradients."""
    replayed = replay.update(inputs, FLOAT32)
    noise = Noise(
        lambda moved: replay.update_rounding(inputs._replace(master=moved)),
        inputs.master,
        number,
    )

    def compare(units: Units, closely: bool) -> Iterator[Measurement]:
        for name, expected in replayed.items():
            kind, _, tensor = name.partition("/")
            yield measure(
                number,
                OF_KIND[kind].name,
                tensor,
                _recorded(step, name, number, expected.shape),
                expected,
                units.get(name, 0.0),
                FLOAT32,
                threshold=rounds.threshold,
                closely=closely,
            )

    return rounds.run(noise.units, compare)


def judge_norm(number: int, step: Tensors, threshold: float) -> Measurement:
    """Measures the recorded norm against that of the recorded gradients, in ulps."""
    norm = trace.grad_norm(select(step, "grads").values(), skipped=False)
    return measure(
        number,
        "grad_norm",
        "",
        step["grad_norm"],
        np.float64(norm),
        0.0,
        FLOAT32,
        threshold=threshold,
    )


def judge_skipped(number: int, step: Tensors) -> list[Measurement]:
    """Compares the state after a skipped step with the state before it, to the bit."""
    return [
        equal(
            number,
            "unchanged",
            f"{before}/{name}",
            array,
            step[f"{CARRIED[before]}/{name}"],
        )
        for before in KEPT
        for name, array in select(step, before).items()
    ]


def _recorded(
    step: Tensors, name: str, number: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns a recorded tensor; raises UserError if it is missing or misshapen."""
    if name not in step:
        raise UserError(
            f"cannot judge: step {number} of the recording lacks {name}; record with "
            "--record=full"
        )
    if step[name].shape != shape:
        raise UserError(
            f"cannot judge: step {number}: {name} is {step[name].shape} in the "
            f"recording, {shape} in its replay; names and layouts of a trace are Flax's"
        )
    return step[name]
