"""Known differences of layers, tried on a port whose layers nobody has seen.

A layer's epsilon is an attribute of its module, and GELU a function that modules look
up when they are called: both can be changed from outside. What a port computes in code
of its own cannot, and stays unexplained.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen
import flax.nnx
import jax

from jaxnn.experiment.patches import Patch
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.judging.rounds import Rounds
from parity.judging.tensors import judge_gradients
from parity.noise import FEW_DRAWS, Tensors, norm
from parity.own.networks.network import Change
from parity.own.passes import Objective
from parity.own.port import Port
from parity.own.recorded_step import recorded_step
from parity.own.recording import Ported
from parity.own.replay import PortReplay
from parity.quantities import GRADIENTS

EPSILON_NAMES = ("epsilon", "eps")
EPSILONS = (1e-5, 1e-6, 1e-3, 1e-12, 1e-8)
"""Those of torch's and flax's layers and of published models."""
COARSER = 2.0
"""A trial explains nothing by noise this much larger than without it."""
ACTIVATIONS = "activations"

Measurements = dict[tuple[str, str], Measurement]
"""{(quantity, tensor): measurement} of one step."""


class Trial(NamedTuple):
    """One difference to try.

    Attributes:
      name: its short name.
      text: what the recording stack did.
      reference: where it is documented.
      change: what it changes in the port.
    """

    name: str
    text: str
    reference: str
    change: Change


def trials(
    port: Port, number: int, measurements: Sequence[Measurement], threshold: float
) -> Iterator[Explanation]:
    """Yields the first difference of layers that explains a step.

    It explains the whole if it explains every step that diverges there.

    Args:
      port: the port and its recording.
      number: index of the first diverging step.
      measurements: of every step, without any trial.
      threshold: largest z that passes.
    """
    of_step = {m.key: m for m in measurements if m.step == number}
    failed = [
        m for m in measurements if m.z > threshold and m.definition.part == GRADIENTS
    ]
    later = sorted({m.step for m in failed} - {number})
    for trial in _catalogue(port, number, of_step, threshold):
        objective = port.objective.under(trial.change)

        def settles(step: int, objective: Objective = objective) -> bool:
            replay = replay_of(port, step, objective)
            return passes(port, step, replay, measurements, threshold)

        if settles(number):
            whole = all(settles(step) for step in later)
            yield cause(
                [trial.name], trial.text, trial.reference, GRADIENTS, failed, whole
            )
            return


def _catalogue(
    port: Port, number: int, before: Measurements, threshold: float
) -> Iterator[Trial]:
    held = port.network.attributes(EPSILON_NAMES)
    possible = _kinds_that_may_be_wrong(port, before, threshold)
    for epsilon in EPSILONS:
        for (kind, name), values in held.items():
            if kind in possible and epsilon not in values:
                mine = ", ".join(f"{value:g}" for value in sorted(values))
                yield Trial(
                    "norm_epsilon",
                    f"{kind} adds {epsilon:g} where yours adds {mine}",
                    "MISMATCHES L2",
                    Change(kind, name, epsilon),
                )
    forms = _forms_of_gelu(port, number)
    for approximate, form in ((True, "tanh"), (False, "erf")):
        if forms - {approximate}:
            yield Trial(
                "gelu_form",
                f"GELU is in its {form} form",
                "MISMATCHES L7",
                Change(patches=_gelu(approximate)),
            )


def _kinds_that_may_be_wrong(
    port: Port, before: Measurements, threshold: float
) -> set[str]:
    """Returns the classes of layers of which one may be the first to differ.

    That is the first whose output fails, or one whose output was not compared.
    """
    compared = {name: m.z for (kind, name), m in before.items() if kind == ACTIVATIONS}
    wrong = [name for name in port.order if compared.get(name, 0) > threshold]
    kinds = port.network.kinds()
    return {kinds[path] for path in kinds if path not in compared or path in wrong[:1]}


def _forms_of_gelu(port: Port, number: int) -> set[bool]:
    """Returns with which values of `approximate` a port calls JAX's GELU."""
    forms: set[bool] = set()

    def make(plain: Any) -> Any:
        def gelu(x: Any, approximate: bool = True) -> Any:
            forms.add(bool(approximate))
            return plain(x, approximate)

        return gelu

    objective = port.objective.under(Change(patches=_of_gelu(make)))
    PortReplay(port.ported, number, objective, None).trace()
    return forms


@functools.cache
def _gelu(approximate: bool) -> tuple[Patch, ...]:
    def make(plain: Any) -> Any:
        def gelu(x: Any, *args: Any, **kwargs: Any) -> Any:
            del args, kwargs
            return plain(x, approximate=approximate)

        return gelu

    return _of_gelu(make)


def _of_gelu(make: Any) -> tuple[Patch, ...]:
    return tuple(Patch(place, "gelu", make) for place in (jax.nn, flax.linen, flax.nnx))


def replay_of(
    port: Port,
    number: int,
    objective: Objective | None = None,
    ported: Ported | None = None,
) -> PortReplay:
    """Returns a replay of one step without its update.

    Args:
      port: the port and its recording.
      number: index of the step.
      objective: loss and gradients; the port's own if None.
      ported: the recording; the port's own if None.
    """
    # Not `or`: a recording has a length.
    held = port.ported if ported is None else ported
    activations = port.activations(number)
    return PortReplay(held, number, objective or port.objective, None, activations)


def passes(
    port: Port,
    number: int,
    replay: PortReplay,
    measurements: Sequence[Measurement],
    threshold: float,
) -> bool:
    """Returns True if a changed replay leaves nothing of a step's gradients to explain.

    Args:
      port: the port and its recording.
      number: index of the step.
      replay: of that step.
      measurements: of every step, by the replay that is not changed.
      threshold: largest z that passes.
    """
    inputs = replay.inputs(number)
    step = recorded_step(port, number, inputs.scale)
    replayed = replay.gradients(inputs, replay.compute)
    before = {m.key: m for m in measurements if m.step == number}
    if not all(_is_near(step, replayed, m) for m in before.values()):
        return False
    rounds = Rounds((FEW_DRAWS,), threshold)
    after = judge_gradients(replay, number, step, inputs, replayed, rounds)
    return all(m.z <= threshold and _is_as_sharp(m, before) for m in after)


def _is_near(step: Tensors, replayed: Tensors, m: Measurement) -> bool:
    """Returns False where a tensor could only pass by coarser noise.

    It saves the compilation for float64 of what explains nothing.
    """
    kind = m.definition.kind
    name = f"{kind}/{m.tensor}" if m.tensor else kind
    if name not in replayed or not m.detectable:
        return True
    left = norm(step[name] - replayed[name]) / norm(step[name])
    return not left > COARSER * m.detectable


def _is_as_sharp(m: Measurement, before: Measurements) -> bool:
    held = before.get(m.key)
    return held is None or m.detectable <= COARSER * max(held.detectable, 1e-30)
