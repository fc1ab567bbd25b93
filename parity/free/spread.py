"""How far rounding alone moves the end of training.

Measured on JAX runs that start one ulp apart, and on one run in float64.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import precision
from jaxnn.experiment.catalogue import BINARY, MULTICLASS
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.train_step import TrainState
from parity.free.end import RunEnd
from parity.free.ensemble import Ensemble
from parity.noise import jitter, norm, ulp

RUNS = 8
"""JAX runs in the compute dtype."""

FLOAT32 = np.dtype(np.float32)


class Spread(NamedTuple):
    """Where the JAX runs end; names are those of `RunEnd`.

    Attributes:
      ends: name -> [runs, ...] float64.
      exact: name -> [...], of the run in float64.
      rounding: name -> Euclidean norm of the change that rounding makes without being
        amplified by training.
      push: name -> distance of the runs from float64 over their distance from each
        other, at least 1.
    """

    ends: RunEnd
    exact: RunEnd
    rounding: Mapping[str, float]
    push: Mapping[str, float]


def measure(
    experiment: Experiment, data: Dataset, initial: Mapping[str, np.ndarray]
) -> Spread:
    """Trains `RUNS` runs one ulp of the compute dtype apart, and one in float64.

    Args:
      experiment: experiment to train to its end, without early stopping.
      data: data set.
      initial: flat float32 parameters that the first run and the float64 run start
        from.

    Raises:
      UserError: a run diverged.
    """
    compute = np.dtype(precision.POLICIES[experiment.precision].compute)
    rng = np.random.default_rng(experiment.seed)
    starts = start_apart(initial, compute, rng)

    ensemble = Ensemble(experiment, data)
    state, epoch, steps = ensemble.train(ensemble.start(starts))
    ends = ensemble.outcomes(state, epoch)

    # The last epoch twice more without learning, once from parameters moved by their
    # rounding: the difference is what rounding does to losses and metrics.
    ulps = Ulps(compute, sum(ensemble.plan))
    moved_state = ulps.move(state, rng)
    last = len(ensemble.plan) - 1
    still = ensemble.outcomes(*ensemble.train_epoch(state, last, learns=False))
    moved = ensemble.outcomes(*ensemble.train_epoch(moved_state, last, learns=False))

    # An overflow of FP16 does not happen in float64. Without the same skips the two
    # would train for different numbers of updates.
    skipped = np.asarray(steps.skipped[0])
    exact, losses = train_exactly(experiment, data, starts[0], skipped)

    # Of a share of right answers, rounding may flip one.
    answer = 1 / len(data.test_inputs) if data.task in (BINARY, MULTICLASS) else 0.0
    return Spread(
        ends,
        exact,
        rounding(ends, still, moved, ulps, answer),
        push(ends, exact, np.asarray(steps.loss), losses),
    )


def train_exactly(
    experiment: Experiment,
    data: Dataset,
    start: Mapping[str, np.ndarray],
    skipped: np.ndarray,
) -> tuple[RunEnd, np.ndarray]:
    """Trains one run in float64 and returns its outcome and its losses [steps].

    Args:
      experiment: experiment to train.
      data: data set.
      start: flat initial parameters.
      skipped: [steps] bool, updates to leave out.
    """
    with jax.enable_x64(True):
        ensemble = Ensemble(experiment.replace(precision="fp64"), data, skipped)
        state, epoch, steps = ensemble.train(ensemble.start([start]))
        ends = ensemble.outcomes(state, epoch)
        losses = np.asarray(steps.loss[0])
        return {name: array[0] for name, array in ends.items()}, losses


def start_apart(
    initial: Mapping[str, np.ndarray], compute: np.dtype, rng: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """Returns `RUNS` copies of flat parameters, all but the first moved by an ulp.

    Args:
      initial: flat parameters; rounded to `compute` first.
      compute: dtype whose ulp is meant.
      rng: generator of the moves to neighbouring numbers.
    """
    rounded = {name: array.astype(compute) for name, array in initial.items()}
    apart = [
        {name: jitter(array, rng) for name, array in rounded.items()}
        for _ in range(RUNS - 1)
    ]
    # Runs start from float32 parameters, which hold any number of a lower precision.
    return [
        {name: array.astype(FLOAT32) for name, array in params.items()}
        for params in (rounded, *apart)
    ]


class Ulps(NamedTuple):
    """How far rounding moves a parameter in the course of a run.

    The larger of one ulp of the compute dtype, which the forward pass rounds to, and a
    random walk of one float32 ulp per step, as every update of the float32 masters
    rounds.

    Attributes:
      compute: dtype of the forward pass.
      steps: number of steps of the run.
    """

    compute: np.dtype
    steps: int

    def of(self, array: np.ndarray) -> np.ndarray:
        """Returns the distance for each element, float32."""
        # A random walk of n steps of size u ends about sqrt(n) u away.
        walk = self.steps**0.5 * ulp(array, FLOAT32)
        return np.maximum(ulp(array, self.compute), walk).astype(FLOAT32)

    def move(self, state: TrainState, rng: np.random.Generator) -> TrainState:
        """Moves each parameter at random by up to that distance."""

        def moved(array: Any) -> np.ndarray:
            share = rng.uniform(-1, 1, array.shape).astype(FLOAT32)
            array = np.asarray(array)
            return array + share * self.of(array)

        return state._replace(params=jax.tree.map(moved, state.params))


def rounding(
    ends: RunEnd, still: RunEnd, moved: RunEnd, ulps: Ulps, answer: float
) -> dict[str, float]:
    """Returns how far rounding moves each entry of an outcome, as a Euclidean norm.

    Args:
      ends: name -> [runs, ...] outcomes.
      still: outcomes of the last epoch once more, at learning rate zero.
      moved: the same from moved parameters.
      ulps: distances by which parameters were moved.
      answer: least change that rounding may make to a metric: one of all answers where
        the metric is a share of right ones, else 0.
    """
    # Steps must be equal. One more or one less overflow is within rounding.
    found = {"steps": 0.0, "skipped_steps": 1.0}
    for name, values in ends.items():
        if name.startswith(("params/", "batch_stats/")):
            found[name] = norm(ulps.of(values.mean(axis=0)))
        elif name not in found:
            shift = 0.0
            if name in moved and name in still:
                # Root mean square over the runs.
                shift = norm(moved[name] - still[name]) / RUNS**0.5
            # Two roundings in float32, that of a logarithm and that of a sum.
            least = 2 * float(ulp(values.mean(), FLOAT32))
            least_metric = answer if name.startswith("final/") else 0.0
            found[name] = max(shift, least, least_metric)
    return found


def push(
    ends: RunEnd, exact: RunEnd, losses: np.ndarray, exact_losses: np.ndarray
) -> dict[str, float]:
    """Returns the distance of the runs from float64 over their own spread, at least 1.

    Rounding that does not depend on where a run starts pushes all JAX runs one way, and
    those of another stack another way. The spread of the JAX runs does not show it;
    their distance from float64 does.

    Args:
      ends: name -> [runs, ...] outcomes.
      exact: outcome of the run in float64.
      losses: [runs, steps] training losses.
      exact_losses: [steps] training losses in float64.

    Returns:
      Name -> ratio; the same for all tensors, and for all losses and metrics.
    """
    # One number may be close to float64 by luck, so the ratio is taken over many: over
    # all parameters, and over the losses of the later half of the steps.
    is_late = np.arange(losses.shape[1]) >= losses.shape[1] // 2
    known = np.isfinite(losses).all(axis=0) & is_late
    of_params = _ratio(
        [(ends[name], exact[name]) for name in ends if name.startswith("params/")]
    )
    of_losses = _ratio([(losses[:, known].astype(np.float64), exact_losses[known])])

    pushes = {
        "params": of_params,
        "batch_stats": of_params,
        # Counts are the same numbers in any precision.
        "steps": 1.0,
        "skipped_steps": 1.0,
    }
    return {name: pushes.get(name.partition("/")[0], of_losses) for name in ends}


def _ratio(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Distance of runs from the truth over their deviation, at least 1.

    Args:
      pairs: ([runs, ...], [...] truth); each counts relative to the truth's size.
    """
    pairs = [(runs, truth) for runs, truth in pairs if truth.any()]
    distances = [norm(runs.mean(axis=0) - truth) / norm(truth) for runs, truth in pairs]
    deviations = [deviation(runs) / norm(truth) for runs, truth in pairs]
    distance = norm(np.array(distances))
    apart = norm(np.array(deviations))
    return max(1.0, distance / apart) if apart else 1.0


def deviation(runs: np.ndarray) -> float:
    """Standard deviation of [runs, ...], as a Euclidean norm over all elements."""
    return norm(runs - runs.mean(axis=0)) / (len(runs) - 1) ** 0.5
