"""One known semantic difference, as a switch on the replayed step; several together;
and what they are applied to."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch, put
from parity.inputs import Inputs
from parity.noise import Tensors
from parity.rules import Expectation

RULES, GRADIENTS, UPDATE = "rules", "gradients", "update"
"""The parts of a step that are judged apart: what the flags alone demand, forward and
backward pass, optimizer."""


class Situation(NamedTuple):
    """What a switch may look at beside the step itself.

    Attributes:
      experiment: with the switches' changes.
      number: of the step, from 0.
      step: what was recorded of it.
      previous: what was recorded of the step before; empty at the first.
      first: what was recorded of step 0.
      updates: applied before the step.
      learning_rates: the run's table, [updates] float32.
      world_size: ranks that recorded it.
      grows: whether the loss scale doubles at the end of this step.
      initial: the flat parameters that the run was given; None: not known.
    """

    experiment: Experiment
    number: int
    step: Mapping[str, np.ndarray]
    previous: Mapping[str, np.ndarray]
    first: Mapping[str, np.ndarray]
    updates: int
    learning_rates: np.ndarray
    world_size: int
    grows: bool
    initial: Mapping[str, np.ndarray] | None


class Switch(NamedTuple):
    """A known difference between two stacks.

    Attributes:
      name: as `--switches` and reports know it.
      parts: of the step that it changes, of RULES, GRADIENTS, UPDATE.
      explanation: one line, what the recording stack did.
      reference: where the difference is documented: MISMATCHES row, upstream file,
        issue or paper.
      applies: whether an experiment has what the switch acts on.
      experiment: the flags as the recording stack had them.
      patches: of functions, while the step is traced.
      params: as the network read them, (path, traced array, experiment) -> array.
      update: the optimizer's half, (update, experiment) -> update; see
        `train_step.update`.
      expected: what the rules then demand, (expectations, situation) -> expectations.
      before: what the step then starts from, (inputs, situation) -> inputs.
      after: what forward and backward pass then yield, (tensors, situation) -> tensors,
        without more rounding.
    """

    name: str
    parts: tuple[str, ...]
    explanation: str
    reference: str
    applies: Callable[[Experiment], bool]
    experiment: Callable[[Experiment], Experiment] | None = None
    patches: tuple[Patch, ...] = ()
    params: Callable[[str, jax.Array, Experiment], jax.Array] | None = None
    update: Callable[[Callable, Experiment], Callable] | None = None
    expected: Callable[[list[Expectation], Situation], list[Expectation]] | None = None
    before: Callable[[Inputs, Situation], Inputs] | None = None
    after: Callable[[Tensors, Situation], Tensors] | None = None


def changed_experiment(
    experiment: Experiment, switches: Sequence[Switch]
) -> Experiment:
    """The experiment with the changes of every switch."""
    for switch in switches:
        experiment = switch.experiment(experiment) if switch.experiment else experiment
    return experiment


def apply(field: str, switches: Sequence[Switch], value: Any, *context: Any) -> Any:
    """`value` through the function `field` of each switch that has one."""
    for switch in switches:
        function = getattr(switch, field)
        value = function(value, *context) if function else value
    return value


@contextlib.contextmanager
def patched(switches: Sequence[Switch]) -> Iterator[None]:
    """Holds the replacements of every switch, the last on top."""
    with contextlib.ExitStack() as stack:
        for switch in switches:
            put(stack, switch.patches)
        yield
