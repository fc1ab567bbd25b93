"""What follows from the flags alone, to the bit: batches, learning rates, loss scales,
counters, first state; and that each step begins where the one before ended."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import loss_scaling, precision
from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from jaxnn.loss_scaling import LossScale

CARRIED = {
    "params": "updated",
    "moments": "updated_moments",
    "batch_stats": "updated_batch_stats",
}
"""What a step begins with -> what the one before ended with."""


class Expectation(NamedTuple):
    """An equality.

    Attributes:
      quantity: one of `compare.EXACT`.
      tensor: canonical name; empty for a scalar.
      recorded: by the stack.
      expected: what it has to be, to the bit.
    """

    quantity: str
    tensor: str
    recorded: np.ndarray
    expected: np.ndarray

    @property
    def name(self) -> str:
        """Of the tensor in the trace."""
        return (
            self.tensor
            if self.quantity == "params"
            else "/".join(filter(None, (self.quantity, self.tensor)))
        )


class RunPosition(NamedTuple):
    """Where a run stands before a step.

    Attributes:
      updates: applied so far.
      scale: FP16's scaler.
      grows: whether the scale doubles at the end of the step.
    """

    updates: int
    scale: LossScale
    grows: bool


class Timeline:
    """Where a run stands before each step, followed as far as it is asked for.

    Args:
      experiment: as the flags have it.
      is_skipped: number of a step -> whether it was skipped.
    """

    def __init__(self, experiment: Experiment, is_skipped: Callable[[int], bool]):
        self._experiment, self._is_skipped = experiment, is_skipped
        self._updates, self._scale = (
            0,
            jax.tree.map(np.asarray, loss_scaling.initial_loss_scale(experiment)),
        )
        self._stations: list[RunPosition] = []

    def at(self, number: int) -> RunPosition:
        """Before a step, counted from 0."""
        while len(self._stations) <= number:
            self._follow(self._is_skipped(len(self._stations)))
        return self._stations[number]

    def _follow(self, skip: bool) -> None:
        before = after = self._scale
        if self._experiment.precision == "fp16":
            after = jax.tree.map(
                np.asarray,
                loss_scaling.update_loss_scale(
                    before, np.bool_(skip), self._experiment
                ),
            )
        self._stations.append(
            RunPosition(self._updates, before, bool(after.scale > before.scale))
        )
        self._updates, self._scale = self._updates + (not skip), after


def expectations(
    experiment: Experiment,
    num_samples: int,
    number: int,
    progress: RunPosition,
    step: Mapping[str, np.ndarray],
    previous: Mapping[str, np.ndarray],
    rates: np.ndarray,
    initial: Mapping[str, np.ndarray] | None = None,
) -> list[Expectation]:
    """Every equality of one step.

    Args:
      experiment: as the flags have it.
      num_samples: of the training data.
      number: of the step, from 0.
      progress: before it.
      step: what was recorded of it.
      previous: what was recorded of the step before; empty at the first.
      rates: the run's learning rates, [updates] float32.
      initial: the flat parameters that both stacks were given; None: not known.
    """
    return [
        *(
            _initial(experiment, step, initial)
            if number == 0
            else carried(step, previous)
        ),
        Expectation(
            "batch",
            "ids",
            step["batch/ids"],
            batch_ids(experiment, num_samples, number),
        ),
        Expectation(
            "optimizer_step", "", step["optimizer_step"], np.int32(progress.updates)
        ),
        Expectation(
            "learning_rate", "", step["learning_rate"], rates[progress.updates]
        ),
        Expectation(
            "loss_scale", "", step["loss_scale"], np.asarray(progress.scale.scale)
        ),
    ]


def learning_rates(experiment: Experiment, num_samples: int) -> np.ndarray:
    """[updates] float32: the whole run's table."""
    return schedules.learning_rates(
        experiment, batches.total_steps(experiment, num_samples)
    )


def batch_ids(experiment: Experiment, num_samples: int, number: int) -> np.ndarray:
    """[samples] int32: the global batch of a step counted from 0, without padding."""
    epoch, row = divmod(
        number, batches.steps_per_epoch(num_samples, experiment.batch_size)
    )
    ids = batches.epoch_batches(experiment, num_samples, epoch)[row]
    return ids[ids != batches.PADDING]


def carried(
    step: Mapping[str, np.ndarray], previous: Mapping[str, np.ndarray]
) -> Iterator[Expectation]:
    """A step begins where the one before ended."""
    for before, after in CARRIED.items():
        for name, array in select(step, before).items():
            yield Expectation(
                "params", f"{before}/{name}", array, previous[f"{after}/{name}"]
            )


def _initial(
    experiment: Experiment,
    step: Mapping[str, np.ndarray],
    initial: Mapping[str, np.ndarray] | None,
) -> Iterator[Expectation]:
    """Masters start as rounded to the compute format (MISMATCHES D5), moments at zero
    or AdaGrad's start."""
    params = select(step, "params")
    for name in sorted({*(initial or params), *params}):
        absent = np.zeros(0, np.float32)
        recorded, start = (
            params.get(name, absent),
            initial.get(name, absent) if initial else params[name],
        )
        yield Expectation(
            "params", f"params/{name}", recorded, rounded_start(experiment, start)
        )
    start = experiment.adagrad_initial if experiment.optimizer == "adagrad" else 0
    for name, array in select(step, "moments").items():
        yield Expectation(
            "params", f"moments/{name}", array, np.full_like(array, start)
        )


def rounded_start(experiment: Experiment, array: np.ndarray) -> np.ndarray:
    """Masters as they are before the first step."""
    return array.astype(
        np.dtype(precision.POLICIES[experiment.precision].compute)
    ).astype(np.float32)
