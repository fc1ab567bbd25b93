"""Several JAX runs of one experiment in one program: `jaxnn.train`'s epochs, vmapped.

The runs share data, batches and dropout masks and differ in their initial parameters
alone. One vmapped program is compiled for all of them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import epochs, loop, models, parallel, train_step
from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import report
from jaxnn.metrics import METRICS
from jaxnn.optimizers import OPTIMIZERS
from jaxnn.train_step import Batch, StepResult, TrainState
from parity.free.end import RunEnd, outcome


class EnsembleEpoch(NamedTuple):
    """Results of one epoch, on the device.

    Attributes:
      results: results of the training steps, each array [1, runs, steps].
      sums: [1, runs, chunks, 2] sums of loss and metric over each evaluation batch.
      outputs: [1, runs, chunks, rows, ...] outputs of the evaluation batches.
    """

    results: StepResult
    sums: jax.Array
    outputs: jax.Array


class Ensemble:
    """The compiled epoch of an ensemble on one device, with its constant inputs.

    Args:
      experiment: experiment to train, without early stopping.
      data: data set.
      skipped: [steps] bool, updates to leave out beside those that overflow, or None.

    Attributes:
      plan: number of steps of each epoch.
    """

    def __init__(
        self, experiment: Experiment, data: Dataset, skipped: np.ndarray | None = None
    ):
        devices = jax.local_devices()[:1]
        self._experiment = experiment
        self._data = data
        self._model = models.build(experiment, data.signature)
        self._optimizer = OPTIMIZERS[experiment.optimizer](experiment)

        total_steps = batches.total_steps(experiment, len(data.train_inputs))
        rates = schedules.learning_rates(experiment, total_steps)
        self._splits = evaluation.splits(experiment, data)
        self._work, self._owners = epochs.make_work(
            experiment, data, self._splits, rates, devices
        )
        self.plan = self._work.plan
        self._resident = epochs.make_resident(self._work)
        self._evaluated = self._work.evaluated_shard()

        step = functools.partial(
            train_step.train_step,
            experiment,
            self._model,
            self._optimizer,
            axis_name=parallel.AXIS,
        )
        if skipped is not None:
            step = leave_out(step, skipped)
        _, metric = METRICS[data.task]
        evaluate = functools.partial(
            train_step.eval_step, experiment, self._model, metric
        )
        epoch = parallel.make_epoch(step, evaluate, devices)
        # Axis 0 belongs to pmap (one device), so that the runs are axis 1.
        self._epoch = jax.jit(
            jax.vmap(epoch, in_axes=(1, None, None, None), out_axes=1)
        )

    def start(self, starts: Sequence[Mapping[str, np.ndarray]]) -> TrainState:
        """Returns the state before the first step, each array [1, runs, ...].

        Args:
          starts: flat initial parameters of each run.
        """
        variables = jax.jit(
            lambda: train_step.initial_variables(
                self._model, self._experiment.seed, self._data.signature
            )
        )()
        # The drawn parameters are replaced; running statistics are kept.
        states = [
            train_step.initial_state(
                {**variables, "params": trace.unflatten(params)},
                self._experiment,
                self._optimizer,
            )
            for params in starts
        ]
        return jax.tree.map(lambda *arrays: np.stack(arrays)[None], *states)

    def train(self, state: TrainState) -> tuple[TrainState, EnsembleEpoch, StepResult]:
        """Trains to the end.

        Args:
          state: state before the first step.

        Returns:
          The last state, the results of the last epoch, and the results of all steps,
          each array [runs, steps].

        Raises:
          UserError: a run diverged.
        """
        results = []
        for number in range(len(self.plan)):
            state, epoch = self.train_epoch(state, number)
            results.append(_pick(epoch.results, 0))

        every_step = jax.tree.map(
            lambda *arrays: np.concatenate(arrays, axis=1), *results
        )
        return state, epoch, every_step

    def train_epoch(
        self, state: TrainState, number: int, learns: bool = True
    ) -> tuple[TrainState, EnsembleEpoch]:
        """Trains for one epoch and returns the new state and the results.

        Args:
          state: state before the epoch.
          number: number of the epoch, from 0.
          learns: False to replace the learning rates by zeros.

        Raises:
          UserError: a run diverged.
        """
        rates = self._resident.learning_rates
        # Rates are an argument of the compiled epoch, so zeros compile nothing new.
        resident = self._resident._replace(
            learning_rates=rates if learns else jnp.zeros_like(rates)
        )
        ids = self._work.shard(self._work.global_batches(number, 0))
        state, *arrays = self._epoch(state, ids, self._evaluated, resident)
        epoch = EnsembleEpoch(*arrays)

        names = loop.watched_tensors(self._work.experiment, state.params)
        first_step = self._work.first_step(number)
        for run in range(len(state.step[0])):
            loop.stop_if_diverged(_pick(epoch.results, (0, run)), names, first_step)
        return state, epoch

    def outcomes(self, state: TrainState, epoch: EnsembleEpoch) -> RunEnd:
        """Returns the outcomes of all runs: name -> [runs, ...] float64.

        Args:
          state: state after the last epoch.
          epoch: results of that epoch.
        """
        state, epoch = _pick((state, epoch), 0)
        found = [
            self._outcome(_pick(state, run), _pick(epoch, run))
            for run in range(len(state.step))
        ]
        # A metric that is undefined for one run has no spread and is left out.
        shared = [name for name in found[0] if all(name in end for end in found)]
        return {name: np.array([end[name] for end in found]) for name in shared}

    def _outcome(self, state: TrainState, epoch: EnsembleEpoch) -> RunEnd:
        """Returns the outcome of one run, as its summary.json would have it."""
        params = trace.flatten(state.params)
        outputs = parallel.unshard(epoch.outputs[None], len(self._data.test_inputs))
        means = evaluation.means(self._splits, self._owners, np.asarray(epoch.sums))
        summary = {
            "train_loss": self._train_loss(epoch.results),
            "test_loss": means["test"][0],
            "steps": state.step,
            "skipped_steps": state.step - state.updates,
            "final": report.final_metrics(
                self._experiment, self._data, params, outputs
            ),
        }
        return outcome(params, trace.flatten(state.batch_stats), summary)

    def _train_loss(self, results: StepResult) -> np.floating:
        """Mean loss over the samples of the last epoch."""
        counts = batches.samples_per_step(
            self._experiment, len(self._data.train_inputs), self.plan[-1]
        )
        # A skipped FP16 step may have overflowed in the loss itself; jaxnn.train leaves
        # it out of the mean as well.
        known = np.isfinite(results.loss) | ~results.skipped
        return results.loss[known] @ counts[known] / counts[known].sum()


def leave_out(step: Callable, skipped: np.ndarray) -> Callable:
    """Wraps a training step to leave out the updates marked in `skipped`.

    Args:
      step: training step of `train_step.make_train_step`.
      skipped: [steps] bool.
    """

    def train_step(state: TrainState, batch: Batch, learning_rates: jax.Array):
        after, *results = step(state, batch, learning_rates)
        skip = jnp.asarray(skipped)[state.step]
        # As after an overflow: parameters, optimizer and number of updates stay, while
        # step, running statistics and loss scale move on.
        params, opt_state, updates = jax.tree.map(
            lambda old, new: jnp.where(skip, old, new),
            (state.params, state.opt_state, state.updates),
            (after.params, after.opt_state, after.updates),
        )
        after = after._replace(params=params, opt_state=opt_state, updates=updates)
        return after, *results

    return train_step


def _pick(tree: Any, index: int | tuple[int, ...]) -> Any:
    """Indexes every array of a pytree, on the host."""
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)
