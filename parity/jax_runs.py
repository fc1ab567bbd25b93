"""Several JAX runs of one experiment that start one ulp apart: how far rounding alone carries training by its end.

The runs are the epochs of `jaxnn.train`, vmapped over the state and sharing every batch: one program.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import models, parallel, precision, train, train_step
from jaxnn.experiment import batches, evaluation, report, schedules, trace
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import BINARY, MULTICLASS, Dataset
from jaxnn.metrics import METRICS
from jaxnn.optimizers import OPTIMIZERS
from jaxnn.train_step import StepResult, TrainState
from parity.noise import jitter, norm, ulp
from parity.outcome import Outcome, outcome

RUNS = 8
FLOAT32 = np.dtype(np.float32)


class Ends(NamedTuple):
    """How the runs ended.

    Attributes:
      outcomes: name -> [runs, ...] float64.
      rounding: name -> how far rounding moves it without any help from training, as a Euclidean norm.
    """

    outcomes: Outcome
    rounding: Mapping[str, float]


def train_apart(experiment: Experiment, data: Dataset, initial: Mapping[str, np.ndarray]) -> Ends:
    """Trains `RUNS` runs to the end of the experiment, without early stopping, on one device.

    Args:
      experiment: to train.
      data: its data set.
      initial: flat float32 parameters; the first run starts from them, the others one ulp of the compute format away.

    Raises:
      UserError: a run diverged.
    """
    runs, rng = Runs(experiment, data), np.random.default_rng(experiment.seed)
    state, last = runs.start(initial, rng), len(runs.plan) - 1
    for number in range(last + 1):
        state, epoch = runs.train_epoch(state, number)
    outcomes = runs.outcomes(state, epoch, last)
    still, moved = (runs.outcomes(*runs.train_epoch(start, last, learns=False), last)
                    for start in (state, runs.moved(state, rng)))
    return Ends(outcomes, runs.rounding(outcomes, still, moved))


class Epoch(NamedTuple):
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
    """The compiled epoch of all runs and what does not change while they train.

    Attributes:
      plan: steps of each epoch.
    """

    def __init__(self, experiment: Experiment, data: Dataset):
        self._experiment, self._data = experiment, data
        self._model = models.build(experiment, data.signature)
        self._optimizer = OPTIMIZERS[experiment.optimizer](experiment)
        self._compute = np.dtype(precision.POLICIES[experiment.precision].compute)
        samples, devices = len(data.train_inputs), jax.local_devices()[:1]
        self.plan = batches.plan(experiment, samples)
        self._splits = evaluation.splits(experiment, data)
        evaluated, self._owners = evaluation.plan(experiment, self._splits)
        self._evaluated = parallel.shard(evaluated, 1)
        rates = schedules.learning_rates(experiment, batches.total_steps(experiment, samples))
        self._resident = parallel.make_resident(data, self._splits, rates, devices)
        epoch = parallel.make_epoch(
            train_step.make_train_step(experiment, self._model, self._optimizer, parallel.AXIS),
            train_step.make_eval_step(experiment, self._model, METRICS[data.task][1]), devices)
        self._epoch = jax.jit(jax.vmap(epoch, in_axes=(1, None, None, None), out_axes=1))

    def start(self, initial: Mapping[str, np.ndarray], rng: np.random.Generator) -> TrainState:
        """The state of every run before the first step, each array [1, runs, ...]."""
        variables = jax.jit(lambda: train_step.initial_variables(
            self._model, self._experiment.seed, self._data.signature))()

        def state(params: Mapping[str, np.ndarray]) -> TrainState:
            return train_step.initial_state({**variables, "params": trace.unflatten(params)}, self._experiment,
                                            self._optimizer)

        rounded = {name: array.astype(self._compute) for name, array in initial.items()}
        apart = [{name: jitter(array, rng) for name, array in rounded.items()} for _ in range(RUNS - 1)]
        states = [state({name: array.astype(FLOAT32) for name, array in params.items()})
                  for params in (rounded, *apart)]
        return jax.tree.map(lambda *arrays: np.stack(arrays)[None], *states)

    def train_epoch(self, state: TrainState, number: int, learns: bool = True) -> tuple[TrainState, Epoch]:
        """The state of every run after an epoch, and what it reports.

        Args:
          state: before.
          number: of the epoch, from 0.
          learns: whether the learning rate is the run's, or zero.

        Raises:
          UserError: a run diverged.
        """
        rates = self._resident.learning_rates
        resident = self._resident._replace(learning_rates=rates if learns else jax.numpy.zeros_like(rates))
        state, *arrays = self._epoch(state, parallel.shard(self._ids(number), 1), self._evaluated, resident)
        epoch = Epoch(*arrays)
        names = ["loss", *(f"gradient of {name}" for name in trace.flatten(state.params))]
        for run in range(RUNS):
            train.stop_if_diverged(_pick(epoch.results, (0, run)), names, sum(self.plan[:number]))
        return state, epoch

    def outcomes(self, state: TrainState, epoch: Epoch, number: int) -> Outcome:
        """Name -> [runs, ...] float64, after an epoch counted from 0."""
        state, epoch = _pick((state, epoch), 0)
        found = [self._outcome(_pick(state, run), _pick(epoch, run), number) for run in range(RUNS)]
        return {name: np.array([outcome[name] for outcome in found]) for name in found[0]
                if all(name in outcome for outcome in found)}

    def rounding(self, ends: Outcome, still: Outcome, moved: Outcome) -> dict[str, float]:
        """How far rounding moves each entry of an outcome.

        Parameters and statistics, which are stored in float32 and computed with in the compute format: one ulp of that,
        or float32's after a random walk of as many ulps as there were steps. Losses and metrics: by as much as they
        change when the parameters are moved by so much, a share of right answers by at least one answer.

        Args:
          ends: the outcomes of the runs.
          still: of their last epoch once more, at learning rate zero.
          moved: of the same from moved parameters.
        """
        answer = 1 / len(self._data.test_inputs) if self._data.task in (BINARY, MULTICLASS) else 0.0
        rounding = {"steps": 0.0, "skipped_steps": 1.0}
        for name, values in ends.items():
            if name.startswith(("params/", "batch_stats/")):
                rounding[name] = norm(self.ulps(values.mean(axis=0)))
            elif name not in rounding:
                shift = norm(moved[name] - still[name]) / np.sqrt(RUNS) if name in moved and name in still else 0.0
                rounding[name] = max(float(shift), answer if name.startswith("final/") else 0.0)
        return rounding

    def moved(self, state: TrainState, rng: np.random.Generator) -> TrainState:
        """The state with each parameter moved at random by up to what rounding moves it by."""
        def move(array: jax.Array) -> np.ndarray:
            return np.asarray(array) + rng.uniform(-1, 1, array.shape).astype(FLOAT32) * self.ulps(array)

        return state._replace(params=jax.tree.map(move, state.params))

    def ulps(self, array: np.ndarray) -> np.ndarray:
        """How far rounding moves each element of a parameter, float32."""
        walk = float(np.sqrt(sum(self.plan)))
        return np.maximum(ulp(array, self._compute), walk * ulp(array, FLOAT32)).astype(FLOAT32)

    def _ids(self, number: int) -> np.ndarray:
        return batches.epoch_batches(self._experiment, len(self._data.train_inputs), number)[: self.plan[number]]

    def _outcome(self, state: TrainState, epoch: Epoch, number: int) -> Outcome:
        """Of one run: as its metrics.csv and summary.json would have it."""
        params, results = trace.flatten(state.params), epoch.results
        counts = (self._ids(number) != batches.PADDING).sum(axis=1)
        known = np.isfinite(results.loss) | ~results.skipped
        outputs = parallel.unshard(epoch.outputs[None], len(self._data.test_inputs))
        final = report.final_metrics(self._experiment, self._data, params, outputs)
        return outcome(params, trace.flatten(state.batch_stats), {
            "train_loss": results.loss[known] @ counts[known] / counts[known].sum(),
            "test_loss": evaluation.means(self._splits, self._owners, epoch.sums)["test"][0],
            "steps": state.step, "skipped_steps": state.step - state.updates, "final": final})


def _pick(tree: Any, index: int | tuple[int, ...]) -> Any:
    """That element of each array, on the host."""
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)
