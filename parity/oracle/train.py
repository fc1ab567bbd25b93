"""Trains an experiment with NumPy alone: the batches, masks, schedules and metrics of
both stacks, in float64."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxnn.experiment import schedules
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from jaxnn.experiment.results.progress import ProgressBar
from parity.oracle import losses, models, optimizers, step
from parity.oracle.metrics import METRICS
from parity.oracle.tensor import lift

Arrays = dict[str, np.ndarray]
ROWS = 64
"""Samples that are evaluated at a time, if a training batch has no more."""


class OracleState(NamedTuple):
    """What a step changes; arrays by name, float64.

    Attributes:
      params: "hidden_0/kernel" and so on.
      batch_stats: running statistics.
      moments: "first/NAME" and "second/NAME".
      steps: taken.
    """

    params: Arrays
    batch_stats: Arrays
    moments: Arrays
    steps: int


class OracleRun(NamedTuple):
    """What a run leaves.

    Attributes:
      state: after the last epoch, or the best one under `--patience`.
      epoch: that it is of, counted from 1.
      rows: of metrics.csv.
      outputs: [test samples, ...] of that state.
    """

    state: OracleState
    epoch: int
    rows: list[dict[str, float]]
    outputs: np.ndarray


def start(experiment: Experiment, data: Dataset) -> OracleState:
    """The state before the first step, from `--init_params` or fresh.

    Raises:
      UserError: a tensor of `--init_params` is missing, not the model's, or of another
        shape.
    """
    params, batch_stats = models.initial(experiment, data.signature)
    if experiment.init_params:
        given = artifacts.read_arrays(experiment.init_params, "--init_params")
        for name in sorted(params.keys() | given.keys()):
            shapes = [
                side[name].shape if name in side else None for side in (params, given)
            ]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"--init_params: {name} is {shapes[1] or 'missing'} in "
                    f"{experiment.init_params}, {shapes[0] or 'unknown'} in "
                    f"--model={experiment.model}"
                )
        params = {name: given[name].astype(np.float64) for name in params}
    return OracleState(
        params, batch_stats, optimizers.initial_moments(experiment, params), 0
    )


def train(
    experiment: Experiment,
    data: Dataset,
    state: OracleState,
    writer: artifacts.MetricsWriter | None = None,
) -> OracleRun:
    """Runs all epochs and shows each.

    Args:
      experiment: what is trained.
      data: its data set.
      state: before the first step.
      writer: of metrics.csv; None: nothing is written.

    Raises:
      UserError: a loss or gradient is not finite.
    """
    stopping, rows, kept = (
        EarlyStopping(experiment.patience, experiment.min_delta),
        [],
        None,
    )
    with ProgressBar(len(batches.plan(experiment, len(data.train_inputs)))) as progress:
        for after, row, outputs in epochs(experiment, data, state):
            rows.append(row)
            if writer:
                writer.write(row)
            progress.show(row)
            if not experiment.patience or stopping.improves(row["validation_loss"]):
                kept = OracleRun(after, len(rows), rows, outputs)
            elif stopping.is_over:
                break
    assert kept
    return kept


def epochs(
    experiment: Experiment, data: Dataset, state: OracleState
) -> Iterator[tuple[OracleState, dict[str, float], np.ndarray]]:
    """Yields the state after each epoch, its row of metrics.csv and the test split's
    outputs."""
    samples = len(data.train_inputs)
    rates = schedules.learning_rates(
        experiment, batches.total_steps(experiment, samples)
    )
    for epoch, steps in enumerate(batches.plan(experiment, samples)):
        ids = batches.epoch_batches(experiment, samples, epoch)[:steps]
        state, loss = train_epoch(experiment, data, state, ids, rates)
        means, outputs = evaluate(experiment, data, state)
        yield (
            state,
            {
                "epoch": epoch + 1,
                "step": state.steps,
                "learning_rate": float(rates[state.steps - 1]),
                "train_loss": loss,
                **means,
            },
            outputs,
        )


def train_epoch(
    experiment: Experiment,
    data: Dataset,
    state: OracleState,
    ids: np.ndarray,
    rates: np.ndarray,
) -> tuple[OracleState, float]:
    """The state after an epoch's batches, [steps, batch] samples padded with -1, and
    the mean loss of its samples."""
    total = 0.0
    for batch in ids:
        rows = batch[batch != batches.PADDING]
        state, loss = train_step(experiment, data, state, rows, rates[state.steps])
        total += loss * len(rows)
    return state, total / np.count_nonzero(ids != batches.PADDING)


def train_step(
    experiment: Experiment,
    data: Dataset,
    state: OracleState,
    rows: np.ndarray,
    rate: np.float32,
) -> tuple[OracleState, float]:
    """The state after one batch of samples, and its loss."""
    found = step.gradients(
        experiment,
        data.signature,
        state.params,
        state.batch_stats,
        scaled(data, data.train_inputs[rows]),
        data.train_targets[rows],
        state.steps,
    )
    grads, loss = select(found, "grads"), float(found["loss"])
    names = ["loss", *(f"gradient of {name}" for name in grads)]
    finite = np.array([np.isfinite(array).all() for array in (loss, *grads.values())])
    run_log.stop_unless_finite(names, finite[None], state.steps)
    after = step.update(
        experiment, state.params, grads, state.moments, state.steps, rate
    )
    return OracleState(
        select(after, "updated"),
        select(found, "updated_batch_stats"),
        select(after, "updated_moments"),
        state.steps + 1,
    ), loss


def evaluate(
    experiment: Experiment, data: Dataset, state: OracleState
) -> tuple[dict[str, float], np.ndarray]:
    """Mean loss and metric of each split that the run evaluates, and the test split's
    outputs."""
    loss = losses.build(experiment.loss, experiment.label_smoothing)
    (name, metric), row, kept = METRICS[data.task], {}, np.zeros(0)
    for split in evaluation.splits(experiment, data):
        outputs = predict(experiment, data, state, split.inputs)
        row |= {
            f"{split.name}_loss": float(
                loss(lift(outputs), split.targets).value.mean()
            ),
            f"{split.name}_{name}": float(metric(outputs, split.targets).mean()),
        }
        kept = outputs if split.name == "test" else kept
    return row, kept


def predict(
    experiment: Experiment, data: Dataset, state: OracleState, inputs: np.ndarray
) -> np.ndarray:
    """[samples, ...] outputs outside training."""
    rows = max(experiment.batch_size, ROWS)
    parts = [inputs[first : first + rows] for first in range(0, len(inputs), rows)]
    return np.concatenate(
        [
            step.outputs(
                experiment,
                data.signature,
                state.params,
                state.batch_stats,
                scaled(data, part),
            )
            for part in parts
        ]
    )


def scaled(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """uint8 images as numbers, scaled; everything else as it is."""
    if inputs.dtype != np.uint8:
        return inputs
    return data.scaling.apply(inputs) if data.scaling else inputs.astype(np.float64)
