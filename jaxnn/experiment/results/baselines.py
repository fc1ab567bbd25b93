"""What a network must beat: the plain forecasts that its test metrics stand beside.
NumPy only."""

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import scores

TABLES = ("diabetes", "csv", "npz")
"""Data sets of measured rows, which a plane may fit as well as a network does."""


def compare(
    experiment: Experiment, data: Dataset, rmse: float
) -> dict[str, float | None]:
    """The baselines of a regression, None where one is not defined.

    Args:
      experiment: names the data set.
      data: the data set.
      rmse: of the network on the test split.
    """
    if experiment.dataset == "sine":
        error = scores.root_mean_square(persistence(data) - data.test_targets)
        return {
            "persistence_rmse": error,
            "times_below_persistence": error / rmse if rmse else None,
        }
    if (
        experiment.dataset in TABLES
        and isinstance(data.train_inputs, np.ndarray)
        and data.train_inputs.ndim == 2
    ):
        return {
            "linear_regression_r2": scores.r2(
                linear_regression(data), data.test_targets
            )
        }
    return {}


def persistence(data: Dataset) -> np.ndarray:
    """[test samples, 1]: the last value of each window in the unit of the targets, the
    forecast of no change."""
    last = data.test_inputs[:, -1]
    return (data.scaling.invert(last) if data.scaled_on_host else last)[:, :1]


def linear_regression(data: Dataset) -> np.ndarray:
    """[test samples, 1]: the plane that fits the training split best, of all such
    planes the least steep.

    The features are centred first, so that the intercept is not held small, as in
    scikit-learn's LinearRegression.
    """
    inputs, targets = (
        data.train_inputs.astype(np.float64),
        data.train_targets.astype(np.float64),
    )
    center, offset = inputs.mean(axis=0), targets.mean(axis=0)
    slopes = np.linalg.lstsq(inputs - center, targets - offset, rcond=None)[0]
    return (data.test_inputs - center) @ slopes + offset
