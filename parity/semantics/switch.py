"""A known semantic difference between two stacks, as a switch on the replayed step."""

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


class StepContext(NamedTuple):
    """What a switch may look at besides the tensors that it changes.

    Attributes:
      experiment: experiment, with the switches' changes.
      number: step index, from 0.
      step: recorded tensors of the step, by name.
      previous: recorded tensors of the step before; empty at the first.
      first: recorded tensors of step 0.
      updates: updates applied before the step.
      learning_rates: [updates] float32 table of the whole run.
      world_size: number of ranks that recorded the step.
      grows: the loss scale doubles at the end of this step.
      initial: flat parameters that the run was given; None if they are not known.
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

    A switch has as many of the optional hooks as the difference needs; most need one.

    Attributes:
      name: name in reports, in flags and among the planted faults.
      parts: parts of the step that it changes, of `quantities.PARTS`.
      explanation: one line, what the recording stack did.
      reference: where it is documented: a row of MISMATCHES.md, upstream file, issue
        or paper.
      applies: experiment -> True if it has what the switch acts on.
      experiment: experiment -> experiment as the recording stack had it.
      patches: replacements of functions, held while the step is traced.
      params: (name, traced array, experiment) -> parameter as the model read it.
      update: (update, experiment) -> update; see `train_step.update`.
      expected: (expectations, context) -> what the rules then demand.
      before: (inputs, context) -> what the step then starts from.
      after: (tensors, context) -> what the forward and backward pass then yield;
        must not round anew.
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
    expected: Callable[[list[Expectation], StepContext], list[Expectation]] | None = (
        None
    )
    before: Callable[[Inputs, StepContext], Inputs] | None = None
    after: Callable[[Tensors, StepContext], Tensors] | None = None

    @property
    def changes_program(self) -> bool:
        """False if only what goes in or comes out of a replayed step is changed."""
        return bool(self.experiment or self.patches or self.params or self.update)


def changed_experiment(
    experiment: Experiment, switches: Sequence[Switch]
) -> Experiment:
    """Returns the experiment with the changes of every switch."""
    for switch in switches:
        if switch.experiment:
            experiment = switch.experiment(experiment)
    return experiment


def apply(hook: str, switches: Sequence[Switch], value: Any, *context: Any) -> Any:
    """Returns `value` passed through the hook of each switch that has it, in order."""
    for switch in switches:
        function = getattr(switch, hook)
        if function:
            value = function(value, *context)
    return value


@contextlib.contextmanager
def patched(switches: Sequence[Switch]) -> Iterator[None]:
    """Holds the patches of every switch, the last on top."""
    with contextlib.ExitStack() as stack:
        for switch in switches:
            put(stack, switch.patches)
        yield
