"""What a step must be equal to, to the bit, whatever its arithmetic.

From the flags alone follow batches, learning rates, loss scales, counters and the first
state; and each step begins where the one before ended.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import loss_scaling, precision
from jaxnn.experiment import schedules
from jaxnn.experiment.catalogue import OPTIMIZERS
from jaxnn.experiment.data import batches
from jaxnn.experiment.files.trace import Number, select
from jaxnn.experiment.flags.config import Experiment
from jaxnn.loss_scaling import LossScale

CARRIED = {
    "params": "updated",
    "moments": "updated_moments",
    "batch_stats": "updated_batch_stats",
}
"""Kind of tensor that a step begins with -> kind that the step before ended with."""


class Expectation(NamedTuple):
    """One equality.

    Attributes:
      quantity: name of an exact quantity.
      tensor: canonical name; empty for a scalar.
      recorded: value that the stack recorded.
      expected: value that it must be equal to, to the bit.
    """

    quantity: str
    tensor: str
    recorded: Number
    expected: Number

    @property
    def name(self) -> str:
        """Name of the tensor in the trace."""
        # Tensors of the carried state bring their kind with them: "moments/first/...".
        if self.quantity == "params":
            return self.tensor
        return "/".join(filter(None, (self.quantity, self.tensor)))


class RunPosition(NamedTuple):
    """State of a run before a step.

    Attributes:
      updates: updates applied so far.
      scale: FP16's loss scaler.
      grows: the loss scale doubles at the end of the step.
    """

    updates: int
    scale: LossScale
    grows: bool


class Timeline:
    """Position of a run before each step, computed as far as it is asked for.

    Args:
      experiment: the experiment.
      is_skipped: step index -> True if an overflow skipped the step.
    """

    def __init__(self, experiment: Experiment, is_skipped: Callable[[int], bool]):
        self._experiment = experiment
        self._is_skipped = is_skipped
        self._updates = 0
        self._scale = _on_host(loss_scaling.initial_loss_scale(experiment))
        self._positions: list[RunPosition] = []

    def at(self, number: int) -> RunPosition:
        """Returns the position before a step, counted from 0."""
        while len(self._positions) <= number:
            self._follow(self._is_skipped(len(self._positions)))
        return self._positions[number]

    def _follow(self, skip: bool) -> None:
        before = self._scale
        after = self._scale_after(skip)
        grows = bool(after.scale > before.scale)
        self._positions.append(RunPosition(self._updates, before, grows))
        self._updates += not skip
        self._scale = after

    def _scale_after(self, skip: bool) -> LossScale:
        if self._experiment.precision != "fp16":
            return self._scale
        # Looked up at each step, so that a switch that patches it has its effect.
        after = loss_scaling.update_loss_scale(
            self._scale, np.bool_(skip), self._experiment
        )
        return _on_host(after)


def expectations(
    experiment: Experiment,
    num_samples: int,
    number: int,
    position: RunPosition,
    step: Mapping[str, np.ndarray],
    previous: Mapping[str, np.ndarray],
    rates: np.ndarray,
    initial: Mapping[str, np.ndarray] | None = None,
) -> list[Expectation]:
    """Returns every equality of one step.

    Args:
      experiment: the experiment.
      num_samples: number of training samples.
      number: step index, from 0.
      position: state of the run before the step.
      step: recorded tensors of the step, by name.
      previous: recorded tensors of the step before; empty at the first.
      rates: [updates] float32 learning rates of the whole run.
      initial: flat parameters that both stacks were given; None if not known.
    """
    if number == 0:
        state = _initial_state(experiment, step, initial)
    else:
        state = carried(step, previous)
    ids = batch_ids(experiment, num_samples, number)
    updates = np.int32(position.updates)
    rate = rates[position.updates]
    scale = np.asarray(position.scale.scale)
    return [
        *state,
        Expectation("batch", "ids", step["batch/ids"], ids),
        Expectation("optimizer_step", "", step["optimizer_step"], updates),
        Expectation("learning_rate", "", step["learning_rate"], rate),
        Expectation("loss_scale", "", step["loss_scale"], scale),
    ]


def learning_rates(experiment: Experiment, num_samples: int) -> np.ndarray:
    """Returns the learning rates of the whole run, [updates] float32."""
    return schedules.learning_rates(
        experiment, batches.total_steps(experiment, num_samples)
    )


def batch_ids(experiment: Experiment, num_samples: int, number: int) -> np.ndarray:
    """Returns the sample ids of a step's global batch, [samples] without padding."""
    steps = batches.steps_per_epoch(num_samples, experiment.batch_size)
    epoch, row = divmod(number, steps)
    ids = batches.epoch_batches(experiment, num_samples, epoch)[row]
    return ids[ids != batches.PADDING]


def carried(
    step: Mapping[str, np.ndarray], previous: Mapping[str, np.ndarray]
) -> Iterator[Expectation]:
    """Yields the equalities of a step's state with what the step before left."""
    for before, after in CARRIED.items():
        for name, array in select(step, before).items():
            expected = previous[f"{after}/{name}"]
            yield Expectation("params", f"{before}/{name}", array, expected)


def _initial_state(
    experiment: Experiment,
    step: Mapping[str, np.ndarray],
    initial: Mapping[str, np.ndarray] | None,
) -> Iterator[Expectation]:
    """Yields the equalities of the first step's parameters and moments."""
    params = select(step, "params")
    wanted = initial or params
    absent = np.zeros(0, np.float32)
    for name in sorted({*wanted, *params}):
        recorded = params.get(name, absent)
        expected = rounded_start(experiment, wanted.get(name, absent))
        yield Expectation("params", f"params/{name}", recorded, expected)
    flag = OPTIMIZERS[experiment.optimizer].initial
    start = getattr(experiment, flag) if flag else 0
    for name, array in select(step, "moments").items():
        expected = np.full_like(array, start)
        yield Expectation("params", f"moments/{name}", array, expected)


def rounded_start(experiment: Experiment, array: np.ndarray) -> np.ndarray:
    """Returns a master parameter as it is before the first step, float32.

    DeepSpeed makes masters from the half-precision copy (MISMATCHES D5).
    """
    compute = np.dtype(precision.POLICIES[experiment.precision].compute)
    return array.astype(compute).astype(np.float32)


def _on_host(scale: LossScale) -> LossScale:
    return jax.tree.map(np.asarray, scale)
