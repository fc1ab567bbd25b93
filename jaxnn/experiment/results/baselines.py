"""Baselines: simple predictions next to the metrics of the network."""

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.preprocessing import HostScaling
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import scores

# Data sets of measured rows, where linear regression may do as well as a network.
TABLES = ("diabetes", "csv", "npz")
MOST_FEATURES = 1000
"""Of a logistic regression, whose every step solves for all of them."""
MOST_STEPS = 100
"""Of Newton's method, which takes about ten."""


def compare(
    experiment: Experiment, data: Dataset, rmse: float
) -> dict[str, float | None]:
    """Returns the baselines of a regression; None: undefined.

    Args:
      experiment: names the data set.
      data: data set.
      rmse: test RMSE of the network.
    """
    if experiment.dataset == "sine":
        error = scores.root_mean_square(persistence(data) - data.test_targets)
        return {
            "persistence_rmse": error,
            "times_below_persistence": error / rmse if rmse else None,
        }
    # Not for memory-mapped Rows: least squares needs all of them in memory.
    is_array = isinstance(data.train_inputs, np.ndarray)
    if experiment.dataset in TABLES and is_array and data.train_inputs.ndim == 2:
        predicted = linear_regression(data)
        return {"linear_regression_r2": scores.r2(predicted, data.test_targets)}
    return {}


def compare_classes(experiment: Experiment, data: Dataset) -> dict[str, float | None]:
    """Returns the baseline of a logistic network on rows of two classes, or none.

    Args:
      experiment: names the network.
      data: data set of two classes.
    """
    rows = data.train_inputs
    is_table = isinstance(rows, np.ndarray) and rows.ndim == 2
    if experiment.model != "logistic" or not is_table or rows.shape[1] > MOST_FEATURES:
        return {}
    is_right = (logistic_regression(data) > 0) == (data.test_targets > 0.5)
    return {"logistic_regression_accuracy": float(is_right.mean())}


def persistence(data: Dataset) -> np.ndarray:
    """Forecast of no change: the last value of each window, [test samples, 1]."""
    # Inputs may be scaled; targets are in the units of the series.
    last = np.asarray(data.test_inputs)[:, -1]
    if isinstance(data.scaling, HostScaling):
        last = data.scaling.invert(last)
    return last[:, :1]


def linear_regression(data: Dataset) -> np.ndarray:
    """Least squares fit to the training split, [test samples, outputs] predictions.

    Of all solutions it is the one with the smallest slopes, as in scikit-learn's
    LinearRegression.
    """
    inputs = np.asarray(data.train_inputs, np.float64)
    targets = data.train_targets.astype(np.float64)
    # Features are centred first, so that lstsq's minimum norm leaves the intercept out.
    center = inputs.mean(axis=0)
    offset = targets.mean(axis=0)
    slopes = np.linalg.lstsq(inputs - center, targets - offset, rcond=None)[0]
    return (np.asarray(data.test_inputs) - center) @ slopes + offset


def logistic_regression(data: Dataset) -> np.ndarray:
    """Logits [test samples, 1] of a fit to the training split.

    It minimizes the sum of the losses + |slopes|^2 / 2, as scikit-learn's
    LogisticRegression does unless told otherwise, by Newton's method.
    """
    inputs = _with_ones(data.train_inputs)
    is_positive = (data.train_targets > 0.5).astype(np.float64)
    penalized = np.ones((inputs.shape[1], 1))
    # The intercept is not.
    penalized[-1] = 0

    def cost(weights: np.ndarray) -> float:
        logits = inputs @ weights
        losses = np.logaddexp(0, logits) - is_positive * logits
        return losses.sum() + np.square(penalized * weights).sum() / 2

    def newton(weights: np.ndarray) -> np.ndarray:
        probability = 1 / (1 + np.exp(-np.clip(inputs @ weights, -500, 500)))
        slope = inputs.T @ (probability - is_positive) + penalized * weights
        curvature = (inputs * probability * (1 - probability)).T @ inputs
        curvature += np.diag(penalized[:, 0])
        return np.linalg.lstsq(curvature, slope, rcond=None)[0]

    weights = np.zeros_like(penalized)
    for _ in range(MOST_STEPS):
        step = newton(weights)
        # A whole step may overshoot where the sigmoid is flat.
        size = 1.0
        while size > 1e-9 and cost(weights - size * step) > cost(weights):
            size /= 2
        weights = weights - size * step
        if np.abs(step).max() < 1e-9 * max(np.abs(weights).max(), 1):
            break
    return _with_ones(data.test_inputs) @ weights


def _with_ones(inputs: object) -> np.ndarray:
    """Returns rows with a last column for the intercept, float64."""
    rows = np.asarray(inputs, np.float64)
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
