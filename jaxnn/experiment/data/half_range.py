"""Refuses inputs that FP16 cannot hold, before they become infinite in the network."""

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

LARGEST = 65_504.0
"""The largest number in FP16. Up to 65,520 numbers are rounded down to it."""
OVERFLOWS_FROM = 65_520.0


def checked(experiment: Experiment, data: Dataset) -> Dataset:
    """Returns a data set all of whose inputs FP16 can hold, if that is the precision.

    Rows that are not read yet are checked when they are.

    Raises:
      UserError: FP16 would make an input infinite.
    """
    if experiment.precision != "fp16" or data.train_inputs.dtype != np.float32:
        return data

    def check(inputs: np.ndarray) -> np.ndarray:
        # Two passes without a copy: most inputs are in range.
        if len(inputs) and max(inputs.max(), -inputs.min()) >= OVERFLOWS_FROM:
            raise _too_large(data, inputs)
        return inputs

    return data.map_inputs(check)


def _too_large(data: Dataset, inputs: np.ndarray) -> UserError:
    row, *place = np.argwhere(np.abs(inputs) >= OVERFLOWS_FROM)[0]
    value = inputs[(row, *place)]
    names = data.feature_names
    column = (
        names[place[0]] if names and len(place) == 1 else ", ".join(map(str, place))
    )
    remedy = "--preprocess=standardize"
    if data.scaling is not None:
        remedy = "--precision=bf16 or fp32, or another --preprocess"
    return UserError(
        f"--precision: fp16 ends at {LARGEST:.0f}, and the input {column!r} holds "
        f"{value:.9g}; use {remedy}"
    )
