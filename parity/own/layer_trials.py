"""Known differences of layers, tried on a port whose layers nobody has seen.

A layer's epsilon is an attribute of its module, and GELU a function that modules look
up when they are called: both can be changed from outside. What a port computes in code
of its own cannot, and stays unexplained.
"""

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
from parity.noise import FEW_DRAWS
from parity.own.network import Change
from parity.own.passes import Objective
from parity.own.port import Port
from parity.own.recorded_step import recorded_step
from parity.own.replay import PortReplay
from parity.quantities import GRADIENTS

EPSILON_NAMES = ("epsilon", "eps")
EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-3)
"""Those of torch's and flax's layers and of published models."""
COARSER = 2.0
"""A trial explains nothing by noise this much larger than without it."""


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
    failed = [
        m for m in measurements if m.z > threshold and m.definition.part == GRADIENTS
    ]
    later = sorted({m.step for m in failed} - {number})
    for trial in _catalogue(port):
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


def _catalogue(port: Port) -> Iterator[Trial]:
    held = port.network.attributes(EPSILON_NAMES)
    for epsilon in EPSILONS:
        for (kind, name), values in held.items():
            if epsilon not in values:
                mine = ", ".join(f"{value:g}" for value in sorted(values))
                yield Trial(
                    "norm_epsilon",
                    f"{kind} adds {epsilon:g} where yours adds {mine}",
                    "MISMATCHES L2",
                    Change(kind, name, epsilon),
                )
    for approximate, form in ((True, "tanh"), (False, "erf")):
        yield Trial(
            "gelu_form",
            f"GELU is in its {form} form",
            "MISMATCHES L7",
            Change(patches=_gelu(approximate)),
        )


def _gelu(approximate: bool) -> tuple[Patch, ...]:
    def make(plain: Any) -> Any:
        def gelu(x: Any, *args: Any, **kwargs: Any) -> Any:
            del args, kwargs
            return plain(x, approximate=approximate)

        return gelu

    return tuple(Patch(place, "gelu", make) for place in (jax.nn, flax.linen, flax.nnx))


def replay_of(port: Port, number: int, objective: Objective) -> PortReplay:
    """Returns a replay of one step without its update."""
    return PortReplay(port.ported, number, objective, None, port.activations(number))


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
    rounds = Rounds((FEW_DRAWS,), threshold)
    after = judge_gradients(replay, number, step, inputs, replayed, rounds)
    before = {_key(m): m for m in measurements if m.step == number}
    return all(m.z <= threshold and _is_as_sharp(m, before) for m in after)


def _key(m: Measurement) -> tuple[str, str]:
    return m.quantity, m.tensor


def _is_as_sharp(m: Measurement, before: dict[tuple[str, str], Measurement]) -> bool:
    held = before.get(_key(m))
    return held is None or m.detectable <= COARSER * max(held.detectable, 1e-30)
