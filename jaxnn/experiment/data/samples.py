"""Samples by their ids, as they are held: the same in both stacks, on the host or on
the devices."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.data import lazy_rows
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.evaluation import EvaluationSplit
from jaxnn.experiment.flags.config import Experiment

MEBIBYTE = 2**20


class Samples(NamedTuple):
    """Inputs and targets, on the host or on the devices.

    Attributes:
      inputs: [samples, ...]; on the host perhaps `Rows`, which are not held.
      targets: [samples, ...].
      scaling: offset and scale that uint8 inputs go through when they are used; None:
        they are used as they are.
    """

    inputs: Any
    targets: Any
    scaling: tuple[Any, Any] | None

    @property
    def num_bytes(self) -> int:
        """Of inputs and targets, as they would lie on a device."""
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in self[:2])

    def read(self, ids: np.ndarray | None = None) -> "Samples":
        """Arrays of them all, or of ids [...]: inputs and targets [..., ...]; padding
        takes row 0."""
        if ids is None:
            return self._replace(
                inputs=np.asarray(self.inputs), targets=np.asarray(self.targets)
            )
        places = np.maximum(ids, 0)
        return self._replace(inputs=self.inputs[places], targets=self.targets[places])


def training(data: Dataset) -> Samples:
    """The training split, on the host and unread."""
    return Samples(data.train_inputs, data.train_targets, _scaling(data))


def evaluated(data: Dataset, splits: Sequence[EvaluationSplit]) -> Samples:
    """Splits one after the other, on the host and unread."""
    inputs, targets = (
        [getattr(split, name) for split in splits] for name in ("inputs", "targets")
    )
    inputs, targets = (
        arrays[0] if len(arrays) == 1 else lazy_rows.concatenate(arrays)
        for arrays in (inputs, targets)
    )
    return Samples(inputs, targets, _scaling(data))


def exceed_cache(experiment: Experiment, *parts: Samples) -> bool:
    """Whether they are larger together than `--device_cache_mb`, and are not to be held
    on a device."""
    return sum(part.num_bytes for part in parts) > experiment.device_cache_mb * MEBIBYTE


def _scaling(data: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    return (
        (data.scaling.offset, data.scaling.scale)
        if data.scaling and not data.scaled_on_host
        else None
    )
