"""What a loop may do to gradients whatever its network is, tried on the replay.

Parts that were not counted, gradients that were not zeroed, weights or gradients of the
step before: each is a replay of the same step, and explains only what passes under it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.inputs import Inputs
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.measured.difference import listed
from parity.noise import Tensors
from parity.own.causes import gradient_factor, layer_trials, lost_path
from parity.own.causes.gradient_factor import Factors, Multiplied
from parity.own.causes.layer_trials import passes, replay_of
from parity.own.causes.parts import counted, shares_of
from parity.own.port import Port
from parity.own.recording import Ported
from parity.own.replay import PortReplay
from parity.quantities import GRADIENTS


class Trial(NamedTuple):
    """One difference to try.

    Attributes:
      name: its short name.
      text: what the recording stack did.
      reference: where it comes from.
      replay: index of a step -> its changed replay; None where it would change nothing.
    """

    name: str
    text: str
    reference: str
    replay: Callable[[int], PortReplay | None]


def explain(
    port: Port, measurements: Sequence[Measurement], threshold: float
) -> list[Explanation]:
    """Returns the first difference under which every diverging step passes.

    What holds at the first of them alone is another difference, and has no name; but
    one factor on all gradients was measured, and is told as a part.

    Args:
      port: the port and its recording.
      measurements: of every step, without any trial.
      threshold: largest z that passes.
    """
    failed = [
        m for m in measurements if m.z > threshold and m.definition.part == GRADIENTS
    ]
    diverging = sorted({m.step for m in failed})
    first = diverging[0]
    of_first = [m for m in failed if m.step == first]
    factors = gradient_factor.measured(port, first, of_first)
    wrong = {m.tensor for m in failed if m.quantity == "grads"}
    for trial in _catalogue(port, first, factors, wrong):

        def settles(number: int, trial: Trial = trial) -> bool:
            replay = trial.replay(number)
            return replay is not None and passes(
                port, number, replay, measurements, threshold
            )

        if all(map(settles, diverging)):
            return [_cause(trial, failed, True)]
    found = lost_path.explain(port, failed) or list(
        layer_trials.trials(port, first, measurements, threshold)
    )
    if found or factors is None:
        return found
    return [_cause(_of_factors(port, factors), failed, False)]


def _cause(trial: Trial, failed: Sequence[Measurement], whole: bool) -> Explanation:
    about = [trial.name], trial.text, trial.reference
    return cause(*about, GRADIENTS, failed, whole)


def _of_factors(port: Port, factors: Factors) -> Trial:
    return Trial(
        factors.name,
        factors.text,
        "measured from the recorded gradients",
        lambda number: Multiplied(port, number, factors),
    )


def _catalogue(
    port: Port, first: int, factors: Factors | None, wrong: Collection[str]
) -> Iterator[Trial]:
    if factors:
        yield _of_factors(port, factors)
    shares = shares_of(port, first)
    if shares:

        def counting(number: int) -> PortReplay | None:
            like = len(port.ported.passes(number)) == len(shares.values)
            other = counted(port, shares.values)
            return replay_of(port, number, ported=other) if like else None

        how = "measured from the recorded gradients, and replayed"
        yield Trial(shares.name, shares.text, how, counting)
    kept = [leaf for leaf in port.ported.trained if leaf in wrong]
    everywhere = len(kept) == len(port.ported.trained)
    yield Trial(
        "gradients_not_zeroed",
        "the previous step's gradients are still there"
        + ("" if everywhere else f" in {listed(kept)}"),
        "a missing optimizer.zero_grad(), or a parameter that no optimizer holds",
        lambda number: Added(port, number, kept) if number else None,
    )
    yield Trial(
        "stale_parameters",
        "forward and backward use the parameters of the step before",
        "weights that are not refreshed after an update",
        lambda number: replay_of(
            port, number, ported=_Stale(port.trace, port.converted)
        ),
    )
    yield Trial(
        "gradient_repeated",
        "the gradient is that of the step before",
        "gradients that arrive a step late",
        lambda number: Late(port, number) if number else None,
    )


class _Stale(Ported):
    """A recording whose forward passes read the weights of the step before."""

    def weights_read(self, number: int) -> Tensors:
        """As in Ported."""
        return super().weights_read(max(number - 1, 0))


class Added(PortReplay):
    """A step that adds its gradients to those of the step before."""

    def __init__(self, port: Port, number: int, leaves: Collection[str]):
        super().__init__(
            port.ported, number, port.objective, None, port.activations(number)
        )
        held = select(port.ported.read(number - 1), "grads")
        self._held = {leaf: held[leaf] for leaf in leaves if leaf in held}

    def _gradients(
        self, inputs: Inputs, dtype: np.dtype, nudge: tuple[int, np.dtype] | None
    ) -> Tensors:
        found = super()._gradients(inputs, dtype, nudge)
        more = {f"grads/{name}": grad for name, grad in self._held.items()}
        return {name: array + more.get(name, 0) for name, array in found.items()}


class Late(PortReplay):
    """A step whose gradients are those of the step before."""

    def __init__(self, port: Port, number: int):
        super().__init__(
            port.ported, number, port.objective, None, port.activations(number)
        )
        self._before = replay_of(port, number - 1)
        self._start = self._before.inputs(number - 1)

    def _gradients(
        self, inputs: Inputs, dtype: np.dtype, nudge: tuple[int, np.dtype] | None
    ) -> Tensors:
        found = super()._gradients(inputs, dtype, nudge)
        late = self._before.gradients(self._start, dtype)
        grads = {n: array for n, array in late.items() if n.startswith("grads/")}
        return found | grads
