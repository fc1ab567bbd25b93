"""Trains an experiment with NumPy alone, in float64.

Batches, dropout masks, schedules and metrics are those of both stacks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxnn.experiment import freezing, schedules
from jaxnn.experiment.data import batches, evaluation
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.lazy_rows import Rows
from jaxnn.experiment.early_stopping import EarlyStopping
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import divergence
from jaxnn.experiment.results.progress import ProgressBar
from parity.oracle import losses, models, optimizers, step
from parity.oracle.metrics import METRICS
from parity.oracle.tensor import lift

Arrays = dict[str, np.ndarray]
Row = dict[str, float]
"""One row of metrics.csv."""

MIN_EVALUATION_ROWS = 64
"""Samples per evaluation batch, if a training batch has no more."""


class OracleState(NamedTuple):
    """Everything that a step changes; arrays by name, float64.

    Attributes:
      params: parameters, "hidden_0/kernel" and so on.
      batch_stats: running statistics.
      moments: "first/NAME" and "second/NAME".
      steps: number of steps completed.
    """

    params: Arrays
    batch_stats: Arrays
    moments: Arrays
    steps: int


class OracleRun(NamedTuple):
    """Result of a run.

    Attributes:
      state: state after the last epoch, or after the best one under `--patience`.
      epoch: number of that epoch, from 1.
      rows: rows of metrics.csv, one per epoch.
      outputs: [test samples, ...] outputs of that state.
    """

    state: OracleState
    epoch: int
    rows: list[Row]
    outputs: np.ndarray


def start(experiment: Experiment, data: Dataset) -> OracleState:
    """Returns the state before the first step, from `--init_params` or fresh.

    Raises:
      UserError: a tensor of `--init_params` is missing, unknown or of another shape.
    """
    params, batch_stats = models.initial(experiment, data.signature)
    if experiment.init_params:
        params = _read_params(experiment, params)
    freezing.check(experiment, params)
    trained = freezing.trained(experiment, params)
    moments = optimizers.initial_moments(experiment, trained)
    return OracleState(params, batch_stats, moments, 0)


def _read_params(experiment: Experiment, fresh: Arrays) -> Arrays:
    """Reads `--init_params`, which must have the names and shapes of `fresh`."""
    given = artifacts.read_params(experiment.init_params, "--init_params")
    for name in sorted(fresh.keys() | given.keys()):
        expected = fresh[name].shape if name in fresh else None
        found = given[name].shape if name in given else None
        if expected != found:
            raise UserError(
                f"--init_params: {name} is {found or 'missing'} in "
                f"{experiment.init_params}, {expected or 'unknown'} in "
                f"--model={experiment.model}"
            )
    return {name: given[name].astype(np.float64) for name in fresh}


def train(
    experiment: Experiment,
    data: Dataset,
    state: OracleState,
    writer: artifacts.MetricsWriter | None = None,
) -> OracleRun:
    """Runs all epochs, or fewer under `--patience`, and prints each.

    Args:
      experiment: experiment flags.
      data: data set.
      state: state before the first step.
      writer: writer of metrics.csv, or None to write nothing.

    Raises:
      UserError: a loss or gradient is not finite.
    """
    stopping = EarlyStopping(experiment.patience, experiment.min_delta)
    rows = []
    kept = None

    num_epochs = len(batches.plan(experiment, len(data.train_inputs)))
    with ProgressBar(num_epochs) as progress:
        for after, row, outputs in epochs(experiment, data, state):
            rows.append(row)
            if writer:
                writer.write(row)
            progress.show(row)

            # Without early stopping every epoch replaces the one before.
            if not experiment.patience or stopping.improves(row["validation_loss"]):
                kept = OracleRun(after, len(rows), rows, outputs)
            elif stopping.is_over:
                break

    # Not None: there is at least one epoch, and a finite first loss is an improvement.
    assert kept
    return kept


def epochs(
    experiment: Experiment, data: Dataset, state: OracleState
) -> Iterator[tuple[OracleState, Row, np.ndarray]]:
    """Yields the state, metrics row and test outputs after each epoch."""
    samples = len(data.train_inputs)
    total_steps = batches.total_steps(experiment, samples)
    rates = schedules.learning_rates(experiment, total_steps)

    for epoch, steps in enumerate(batches.plan(experiment, samples)):
        ids = batches.epoch_batches(experiment, samples, epoch)[:steps]
        state, loss = train_epoch(experiment, data, state, ids, rates)
        means, outputs = evaluate(experiment, data, state)
        row = {
            "epoch": epoch + 1,
            "step": state.steps,
            "learning_rate": float(rates[state.steps - 1]),
            "train_loss": loss,
            **means,
        }
        yield state, row, outputs


def train_epoch(
    experiment: Experiment,
    data: Dataset,
    state: OracleState,
    ids: np.ndarray,
    rates: np.ndarray,
) -> tuple[OracleState, float]:
    """Trains on the batches of one epoch.

    Args:
      experiment: experiment flags.
      data: data set.
      state: state before the epoch.
      ids: [steps, batch] sample indices, padded with -1.
      rates: learning rate of every step of the run, float32.

    Returns:
      The state after the epoch, and the mean loss over its samples.
    """
    total = 0.0
    for batch in ids:
        # Padding is dropped instead of masked: shapes need not be static here.
        rows = batch[batch != batches.PADDING]
        # The table is indexed by updates applied. float64 skips no step, so that they
        # equal the steps.
        rate = rates[state.steps]
        state, loss = train_step(experiment, data, state, rows, rate)
        # The mean is over samples, and the last batch may be smaller.
        total += loss * len(rows)
    return state, total / np.count_nonzero(ids != batches.PADDING)


def train_step(
    experiment: Experiment,
    data: Dataset,
    state: OracleState,
    rows: np.ndarray,
    rate: np.float32,
) -> tuple[OracleState, float]:
    """Returns the state after training on the samples `rows`, and their mean loss."""
    found = gradients(experiment, data, state, rows)
    grads = select(found, "grads")
    loss = float(found["loss"])
    _check_finite(loss, grads, state.steps)

    after = step.update(
        experiment, state.params, grads, state.moments, state.steps, rate
    )
    state = OracleState(
        select(after, "updated"),
        select(found, "updated_batch_stats"),
        select(after, "updated_moments"),
        state.steps + 1,
    )
    return state, loss


def gradients(
    experiment: Experiment, data: Dataset, state: OracleState, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns what `step.gradients` does of the training samples `rows`."""
    return step.gradients(
        experiment,
        data.signature,
        state.params,
        state.batch_stats,
        scaled(data, data.train_inputs[rows]),
        data.train_targets[rows],
        state.steps,
    )


def first_batch(experiment: Experiment, data: Dataset) -> np.ndarray:
    """Returns the sample ids of the first training batch."""
    (ids, *_) = batches.epoch_batches(experiment, len(data.train_inputs), 0)
    return ids[ids != batches.PADDING]


def _check_finite(loss: float, grads: Arrays, number: int) -> None:
    names = ["loss", *(f"gradient of {name}" for name in grads)]
    finite = np.array([np.isfinite(array).all() for array in (loss, *grads.values())])
    # One row: the checker takes [steps, tensors].
    divergence.stop_unless_finite(names, finite[None], number)


def evaluate(
    experiment: Experiment, data: Dataset, state: OracleState
) -> tuple[Row, np.ndarray]:
    """Returns mean loss and metric of each evaluated split, and the test outputs."""
    loss = losses.build(experiment.loss, experiment.label_smoothing)
    column, metric = METRICS[data.task]
    row = {}
    test_outputs = np.zeros(0)

    for split in evaluation.splits(experiment, data):
        outputs = predict(experiment, data, state, split.inputs)
        mean_loss = loss(lift(outputs), split.targets).value.mean()
        row[f"{split.name}_loss"] = float(mean_loss)
        row[f"{split.name}_{column}"] = float(metric(outputs, split.targets).mean())
        if split.name == "test":
            test_outputs = outputs
    return row, test_outputs


def predict(
    experiment: Experiment, data: Dataset, state: OracleState, inputs: np.ndarray | Rows
) -> np.ndarray:
    """Returns [samples, ...] outputs in evaluation mode."""
    # In batches: im2col makes a copy of the images per element of a kernel.
    rows = max(experiment.batch_size, MIN_EVALUATION_ROWS)
    outputs = []
    for first in range(0, len(inputs), rows):
        batch = scaled(data, inputs[first : first + rows])
        outputs.append(
            step.outputs(
                experiment, data.signature, state.params, state.batch_stats, batch
            )
        )
    return np.concatenate(outputs)


def scaled(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """Scales uint8 images as the data set says; returns other inputs unchanged."""
    # Images stay uint8 in the data set, an eighth of their size in float64.
    if inputs.dtype != np.uint8:
        return inputs
    return data.scaling.apply(inputs) if data.scaling else inputs.astype(np.float64)
