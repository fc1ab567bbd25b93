"""How far rounding alone carries training by its end: JAX runs that start one ulp
apart, and one in float64."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import precision
from jaxnn.experiment.data.dataset import BINARY, MULTICLASS, Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.train_step import TrainState
from parity.free.end import RunEnd
from parity.free.ensemble import Runs
from parity.noise import jitter, norm, ulp

RUNS = 8
FLOAT32 = np.dtype(np.float32)


class Spread(NamedTuple):
    """Where JAX's runs end.

    Attributes:
      ends: name -> [runs, ...] float64.
      exact: name -> [...], of the run in float64.
      rounding: name -> how far rounding moves it without any help from training, as a
        Euclidean norm.
      push: name -> how many times as far the runs are from float64 as from each other,
        at least 1: rounding that does not depend on where a run starts pushes them all
        one way, and another stack another way.
    """

    ends: RunEnd
    exact: RunEnd
    rounding: Mapping[str, float]
    push: Mapping[str, float]


def measure(
    experiment: Experiment, data: Dataset, initial: Mapping[str, np.ndarray]
) -> Spread:
    """Trains `RUNS` runs one ulp of the compute format apart, and one in float64 with
    the first one's skipped steps.

    Args:
      experiment: to train to its end, without early stopping.
      data: its data set.
      initial: flat float32 parameters that the first run and the exact one start from.

    Raises:
      UserError: a run diverged.
    """
    compute, rng = (
        np.dtype(precision.POLICIES[experiment.precision].compute),
        np.random.default_rng(experiment.seed),
    )
    starts, runs = start_apart(initial, compute, rng), Runs(experiment, data)
    state, epoch, steps = runs.train(runs.start(starts))
    ends, last = runs.outcomes(state, epoch), len(runs.plan) - 1
    ulps = Ulps(compute, sum(runs.plan))
    still, moved = (
        runs.outcomes(*runs.train_epoch(begun, last, learns=False))
        for begun in (state, ulps.move(state, rng))
    )
    exact, losses = train_exactly(experiment, data, starts[0], steps.skipped[0])
    answer = 1 / len(data.test_inputs) if data.task in (BINARY, MULTICLASS) else 0.0
    return Spread(
        ends,
        exact,
        rounding(ends, still, moved, ulps, answer),
        push(ends, exact, steps.loss, losses),
    )


def train_exactly(
    experiment: Experiment,
    data: Dataset,
    start: Mapping[str, np.ndarray],
    skipped: np.ndarray,
) -> tuple[RunEnd, np.ndarray]:
    """The outcome of one run in float64, and its losses [steps].

    Args:
      experiment: to train.
      data: its data set.
      start: flat parameters.
      skipped: [steps] bool, the updates to leave out.
    """
    with jax.enable_x64(True):
        runs = Runs(experiment.replace(precision="fp64"), data, skipped)
        state, epoch, steps = runs.train(runs.start([start]))
        return {
            name: array[0] for name, array in runs.outcomes(state, epoch).items()
        }, steps.loss[0]


def start_apart(
    initial: Mapping[str, np.ndarray], compute: np.dtype, rng: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """`RUNS` copies of flat parameters, rounded to `compute`; all but the first moved
    to neighbouring numbers."""
    rounded = {name: array.astype(compute) for name, array in initial.items()}
    apart = [
        {name: jitter(array, rng) for name, array in rounded.items()}
        for _ in range(RUNS - 1)
    ]
    return [
        {name: array.astype(FLOAT32) for name, array in params.items()}
        for params in (rounded, *apart)
    ]


class Ulps(NamedTuple):
    """How far rounding moves a parameter, which is stored in float32 and computed with
    in the compute format: one ulp of that, or a random walk of one ulp of float32 a
    step.

    Attributes:
      compute: the format of the forward pass.
      steps: of the run.
    """

    compute: np.dtype
    steps: int

    def of(self, array: np.ndarray) -> np.ndarray:
        """float32: for each element."""
        return np.maximum(
            ulp(array, self.compute), self.steps**0.5 * ulp(array, FLOAT32)
        ).astype(FLOAT32)

    def move(self, state: TrainState, rng: np.random.Generator) -> TrainState:
        """The state with each parameter moved at random by up to that."""

        def moved(array: jax.Array) -> np.ndarray:
            return np.asarray(array) + rng.uniform(-1, 1, array.shape).astype(
                FLOAT32
            ) * self.of(array)

        return state._replace(params=jax.tree.map(moved, state.params))


def rounding(
    ends: RunEnd, still: RunEnd, moved: RunEnd, ulps: Ulps, answer: float
) -> dict[str, float]:
    """How far rounding moves each entry of an outcome, as a Euclidean norm.

    Parameters and statistics: by their ulps. Losses and metrics: by as much as they
    change when the parameters are moved by so much, root mean square over the runs, and
    at least by two ulps of float32, of a logarithm and of a sum.

    Args:
      ends: the outcomes of the runs.
      still: of their last epoch once more, at learning rate zero.
      moved: of the same from moved parameters.
      ulps: of the run.
      answer: least change of a metric that rounding may make, one answer of all where
        it is a share of right ones.
    """
    found = {"steps": 0.0, "skipped_steps": 1.0}
    for name, values in ends.items():
        if name.startswith(("params/", "batch_stats/")):
            found[name] = norm(ulps.of(values.mean(axis=0)))
        elif name not in found:
            shift = (
                norm(moved[name] - still[name]) / RUNS**0.5
                if name in moved and name in still
                else 0.0
            )
            least = 2 * float(ulp(values.mean(), FLOAT32))
            found[name] = max(
                shift, least, answer if name.startswith("final/") else 0.0
            )
    return found


def push(
    ends: RunEnd, exact: RunEnd, losses: np.ndarray, exact_losses: np.ndarray
) -> dict[str, float]:
    """Name -> how many times as far the runs are from float64 as from each other, at
    least 1.

    The distance of one number from float64 can be small by luck, so this is a ratio
    over many: for tensors, over all parameters, each relative to its size; for losses
    and metrics, over the losses of the later half of the steps.

    Args:
      ends: name -> [runs, ...].
      exact: of the run in float64.
      losses: [runs, steps].
      exact_losses: [steps].
    """
    known = np.isfinite(losses).all(axis=0) & (
        np.arange(losses.shape[1]) >= losses.shape[1] // 2
    )
    of_params = _ratio(
        [(ends[name], exact[name]) for name in ends if name.startswith("params/")]
    )
    of_losses = _ratio([(losses[:, known].astype(np.float64), exact_losses[known])])
    pushes = {
        "params": of_params,
        "batch_stats": of_params,
        "steps": 1.0,
        "skipped_steps": 1.0,
    }
    return {name: pushes.get(name.partition("/")[0], of_losses) for name in ends}


def _ratio(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Runs' distance from the truth over their deviation, each relative to the truth's
    size; at least 1."""
    pairs = [(runs, truth) for runs, truth in pairs if truth.any()]
    distances = norm(
        np.array(
            [norm(runs.mean(axis=0) - truth) / norm(truth) for runs, truth in pairs]
        )
    )
    deviations = norm(
        np.array([deviation(runs) / norm(truth) for runs, truth in pairs])
    )
    return max(1.0, distances / deviations) if deviations else 1.0


def deviation(runs: np.ndarray) -> float:
    """Standard deviation of runs [runs, ...], as a Euclidean norm over all their
    elements."""
    return norm(runs - runs.mean(axis=0)) / (len(runs) - 1) ** 0.5
