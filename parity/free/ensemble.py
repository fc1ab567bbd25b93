"""JAX runs of one experiment, side by side in one program: the epochs of `jaxnn.train`,
vmapped over the state."""

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
    """What the runs report of an epoch, on the device.

    Attributes:
      results: each array [1, runs, steps].
      sums: [1, runs, chunks, 2] of loss and metric over each evaluated batch.
      outputs: [1, runs, chunks, rows, ...] of the evaluated batches.
    """

    results: StepResult
    sums: jax.Array
    outputs: jax.Array


class Runs:
    """The compiled epoch of runs that share every batch, on one device, and what does
    not change while they train.

    Args:
      experiment: to train, without early stopping.
      data: its data set.
      skipped: [steps] bool, updates to leave out beyond those that overflow; None: no
        others.

    Attributes:
      plan: steps of each epoch.
    """

    def __init__(
        self, experiment: Experiment, data: Dataset, skipped: np.ndarray | None = None
    ):
        self._experiment, self._data, devices = (
            experiment,
            data,
            jax.local_devices()[:1],
        )
        self._model = models.build(experiment, data.signature)
        self._optimizer = OPTIMIZERS[experiment.optimizer](experiment)
        self._splits = evaluation.splits(experiment, data)
        rates = schedules.learning_rates(
            experiment, batches.total_steps(experiment, len(data.train_inputs))
        )
        self._work, self._owners = epochs.make_work(
            experiment, data, self._splits, rates, devices
        )
        self.plan, self._resident = self._work.plan, epochs.make_resident(self._work)
        self._evaluated = self._work.evaluated_shard()
        step = functools.partial(
            train_step.train_step,
            experiment,
            self._model,
            self._optimizer,
            axis_name=parallel.AXIS,
        )
        epoch = parallel.make_epoch(
            step if skipped is None else leaving_out(step, skipped),
            functools.partial(
                train_step.eval_step, experiment, self._model, METRICS[data.task][1]
            ),
            devices,
        )
        self._epoch = jax.jit(
            jax.vmap(epoch, in_axes=(1, None, None, None), out_axes=1)
        )

    def start(self, starts: Sequence[Mapping[str, np.ndarray]]) -> TrainState:
        """The state of every run before the first step, each array [1, runs, ...].

        Args:
          starts: each run's flat parameters.
        """
        variables = jax.jit(
            lambda: train_step.initial_variables(
                self._model, self._experiment.seed, self._data.signature
            )
        )()
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
        """Trains to the end; returns the state, what the last epoch reports, and every
        step, arrays [runs, steps].

        Raises:
          UserError: a run diverged.
        """
        results = []
        for number in range(len(self.plan)):
            state, epoch = self.train_epoch(state, number)
            results.append(_pick(epoch.results, 0))
        return (
            state,
            epoch,
            jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *results),
        )

    def train_epoch(
        self, state: TrainState, number: int, learns: bool = True
    ) -> tuple[TrainState, EnsembleEpoch]:
        """The state of every run after an epoch, and what it reports.

        Args:
          state: before.
          number: of the epoch, from 0.
          learns: whether the learning rate is the run's, or zero.

        Raises:
          UserError: a run diverged.
        """
        rates = self._resident.learning_rates
        ids = self._work.global_batches(number, 0)
        resident = self._resident._replace(
            learning_rates=rates if learns else jnp.zeros_like(rates)
        )
        state, *arrays = self._epoch(
            state, self._work.shard(ids), self._evaluated, resident
        )
        epoch = EnsembleEpoch(*arrays)
        names = loop.watched_tensors(state.params)
        for run in range(len(state.step[0])):
            loop.stop_if_diverged(
                _pick(epoch.results, (0, run)), names, self._work.first_step(number)
            )
        return state, epoch

    def outcomes(self, state: TrainState, epoch: EnsembleEpoch) -> RunEnd:
        """Name -> [runs, ...] float64, after the last epoch; a metric that is undefined
        for one run is left out."""
        state, epoch = _pick((state, epoch), 0)
        found = [
            self._outcome(_pick(state, run), _pick(epoch, run))
            for run in range(len(state.step))
        ]
        return {
            name: np.array([outcome[name] for outcome in found])
            for name in found[0]
            if all(name in outcome for outcome in found)
        }

    def _outcome(self, state: TrainState, epoch: EnsembleEpoch) -> RunEnd:
        """Of one run: as its metrics.csv and summary.json would have it."""
        params, results = trace.flatten(state.params), epoch.results
        counts = batches.samples_per_step(
            self._experiment, len(self._data.train_inputs), self.plan[-1]
        )
        known = np.isfinite(results.loss) | ~results.skipped
        outputs = parallel.unshard(epoch.outputs[None], len(self._data.test_inputs))
        final = report.final_metrics(self._experiment, self._data, params, outputs)
        return outcome(
            params,
            trace.flatten(state.batch_stats),
            {
                "train_loss": results.loss[known] @ counts[known] / counts[known].sum(),
                "test_loss": evaluation.means(self._splits, self._owners, epoch.sums)[
                    "test"
                ][0],
                "steps": state.step,
                "skipped_steps": state.step - state.updates,
                "final": final,
            },
        )


def leaving_out(step: Callable, skipped: np.ndarray) -> Callable:
    """A training step that leaves parameters and optimizer as they were at the steps
    that are named."""

    def train_step(state: TrainState, batch: Batch, learning_rates: jax.Array):
        after, *results = step(state, batch, learning_rates)
        skip = jnp.asarray(skipped)[state.step]
        params, opt_state, updates = jax.tree.map(
            lambda old, new: jnp.where(skip, old, new),
            (state.params, state.opt_state, state.updates),
            (after.params, after.opt_state, after.updates),
        )
        return after._replace(
            params=params, opt_state=opt_state, updates=updates
        ), *results

    return train_step


def _pick(tree: Any, index: int | tuple[int, ...]) -> Any:
    """That element of each array, on the host."""
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)
