"""A known semantic fault, and how it is planted in a run of `torch_ref.train`."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch, put
from torch_ref import engine_readers, loop

# When a fault begins.
START = "start"
"""With the run."""

STEP = "step"
"""With a step, to stay until the end."""

EVENT = "event"
"""Right before a step, once."""


@dataclasses.dataclass
class Scene:
    """What a fault may look at. All but the first two are set when training begins.

    Attributes:
      experiment: settings of the run.
      first_step: first step that the fault acts on, from 0.
      step: index of the current step.
      engine: DeepSpeed engine, or None before `engine.initialize`.
      learning_rates: [updates] float32, the table of the run.
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
        """True if the fault acts on the current step."""
        return self.step >= self.first_step


class Fault(NamedTuple):
    """A known difference between the two stacks, as a change of this one.

    Attributes:
      name: name of the switch in parity/semantics that undoes it.
      begins: START, STEP or EVENT; a fault of the start ignores the first step.
      needs: what an experiment must have, in words.
      applies: returns True if an experiment has it.
      plant: called when the fault begins; returns the patches that stay.
      watches: number of steps before the first that `plant` must see; its patches must
        then check `Scene.has_begun` themselves.
    """

    name: str
    begins: str
    needs: str
    applies: Callable[[Experiment], bool]
    plant: Callable[[Scene], Iterable[Patch]]
    watches: int = 0


@contextlib.contextmanager
def planted(fault: Fault, experiment: Experiment, first_step: int) -> Iterator[None]:
    """Plants a fault in the run of `train.main` inside the context.

    Args:
      fault: one that applies to the experiment.
      experiment: settings of the run.
      first_step: first step that the fault acts on, from 0.

    Raises:
      UserError: the run ends before that step.
    """
    scene = Scene(experiment, first_step)
    with contextlib.ExitStack() as undo:
        if fault.begins == START:
            patches = fault.plant(scene)
        else:
            # The fault needs the engine, which is there when `loop.train` is called.
            patches = [
                Patch(loop, "train", lambda plain: _watched(plain, fault, scene, undo))
            ]
        put(undo, patches)
        yield


def _watched(
    plain: Callable, fault: Fault, scene: Scene, undo: contextlib.ExitStack
) -> Callable:
    """`loop.train` that plants the fault before the right step."""

    def watched_train(run: loop.Run, epochs_done: int) -> loop.Kept:
        _check_reached(scene, sum(run.work.plan))
        scene.engine = run.engine
        scene.learning_rates = run.work.learning_rates
        scene.initial = engine_readers.masters(run.engine)
        # Training asks the recorder at the beginning of every step.
        put(undo, [Patch(run.recorder, "wants", make_wants)])
        return plain(run, epochs_done)

    def make_wants(wants: Callable[[int], bool]) -> Callable[[int], bool]:
        first_watched = max(scene.first_step - fault.watches, 0)

        def begin_step(step: int) -> bool:
            scene.step = step
            if step == first_watched:
                put(undo, fault.plant(scene))
            return wants(step)

        return begin_step

    return watched_train


def _check_reached(scene: Scene, steps: int) -> None:
    if scene.first_step >= steps:
        raise UserError(
            f"--first_step: the run ends before step {scene.first_step}, after {steps} "
            "steps; lower it"
        )
