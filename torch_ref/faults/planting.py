"""Plants a fault in the training that follows, and takes it back."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch, put
from torch_ref import engine_readers, loop
from torch_ref.faults.fault import START, Fault, Scene


@contextlib.contextmanager
def planted(fault: Fault, experiment: Experiment, first_step: int) -> Iterator[None]:
    """A run of `train.main` within it has the fault.

    Args:
      fault: one that applies to the experiment.
      experiment: of the run.
      first_step: from which on, from 0.

    Raises:
      UserError: the run ends before that step.
    """
    scene = Scene(experiment, first_step)
    with contextlib.ExitStack() as undo:
        if fault.begins == START:
            put(undo, fault.plant(scene))
        else:
            put(
                undo,
                [
                    Patch(
                        loop,
                        "train",
                        lambda plain: _watched(plain, fault, scene, undo),
                    )
                ],
            )
        yield


def _watched(
    plain: Callable, fault: Fault, scene: Scene, undo: contextlib.ExitStack
) -> Callable:
    """`loop.train`, which asks the recorder at the beginning of every step whether it
    wants it."""

    def watched_train(run: loop.Run, epochs_done: int) -> loop.Kept:
        _check_reached(scene, sum(run.work.plan))
        scene.engine, scene.learning_rates, scene.initial = (
            run.engine,
            run.work.learning_rates,
            engine_readers.masters(run.engine),
        )
        put(undo, [Patch(run.recorder, "wants", begin)])
        return plain(run, epochs_done)

    def begin(wants: Callable[[int], bool]) -> Any:
        def begin_step(step: int) -> bool:
            scene.step = step
            if step == max(scene.first_step - fault.watches, 0):
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
