"""One known semantic fault and what it is planted in."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch

START, STEP, EVENT = "start", "step", "event"
"""When a fault begins: with the run; with a step, to stay; right before a step, once.
"""


@dataclasses.dataclass
class Scene:
    """What a fault may look at.

    Attributes:
      experiment: that is trained.
      first_step: the first that the fault acts on, from 0.
      step: under way, or the next.
      engine: of `engine.initialize`; None before there is one, as for what follows.
      learning_rates: the run's table, [updates] float32.
      initial: torch name -> master parameter before the first step.
    """

    experiment: Experiment
    first_step: int
    step: int = 0
    engine: Any = None
    learning_rates: Any = None
    initial: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    @property
    def has_begun(self) -> bool:
        """Whether the step under way is one that the fault acts on."""
        return self.step >= self.first_step


class Fault(NamedTuple):
    """A known difference between two stacks, as a change of this one.

    Attributes:
      name: of the switch in parity/semantics that undoes it.
      begins: START, STEP or EVENT; the first has no regard for the first step.
      needs: what an experiment must have, in words.
      applies: whether it has.
      plant: what is done when the fault begins; returns the patches that stay.
      watches: steps before the first that `plant` must see; its patches then ask
        `Scene.has_begun` themselves.
    """

    name: str
    begins: str
    needs: str
    applies: Callable[[Experiment], bool]
    plant: Callable[[Scene], Iterable[Patch]]
    watches: int = 0
