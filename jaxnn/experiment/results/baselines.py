"""Baselines of regression: simple forecasts next to the metrics of the network."""

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.preprocessing import HostScaling
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import scores

# Data sets of measured rows, where linear regression may do as well as a network.
TABLES = ("diabetes", "csv", "npz")


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
