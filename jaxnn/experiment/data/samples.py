"""`Samples`: inputs and targets by sample id, on the host or on devices.

The same in both stacks.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.data import lazy_rows
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.evaluation import EvaluationSplit
from jaxnn.experiment.data.preprocessing import Scaling
from jaxnn.experiment.flags.config import Experiment

MEBIBYTE = 2**20


class Samples(NamedTuple):
    """Inputs and targets.

    Attributes:
      inputs: [samples, ...] array; on the host possibly unread `Rows`.
      targets: [samples, ...] array.
      scaling: (offset, scale) to apply to uint8 inputs when a step uses them, or None.
    """

    inputs: Any
    targets: Any
    scaling: tuple[Any, Any] | None

    @property
    def num_bytes(self) -> int:
        """Size of inputs and targets on a device."""
        # From shape and dtype: Rows have no nbytes.
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in self[:2])

    def read(self, ids: np.ndarray | None = None) -> "Samples":
        """Returns all samples as arrays, or those of some ids.

        Args:
          ids: [...] int sample ids; None: all samples.

        Returns:
          Inputs and targets [..., ...], one for each id.
        """
        if ids is None:
            return self._replace(
                inputs=np.asarray(self.inputs), targets=np.asarray(self.targets)
            )
        # Padding has the id -1 and any row will do, since its weight is 0.
        places = np.maximum(ids, 0)
        return self._replace(inputs=self.inputs[places], targets=self.targets[places])


def training(data: Dataset) -> Samples:
    """Returns the training split, on the host and unread."""
    return Samples(data.train_inputs, data.train_targets, _scaling(data))


def evaluated(data: Dataset, splits: Sequence[EvaluationSplit]) -> Samples:
    """Returns the concatenation of some splits, on the host and unread."""
    inputs = _concatenate([split.inputs for split in splits])
    targets = _concatenate([split.targets for split in splits])
    return Samples(inputs, targets, _scaling(data))


def exceed_cache(experiment: Experiment, *samples: Samples) -> bool:
    """Returns True if samples are together larger than `--device_cache_mb`."""
    num_bytes = sum(each.num_bytes for each in samples)
    return num_bytes > experiment.device_cache_mb * MEBIBYTE


def _concatenate(arrays: Sequence[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else lazy_rows.concatenate(arrays)


def _scaling(data: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns offset and scale of uint8 images; other inputs are scaled already."""
    if not isinstance(data.scaling, Scaling):
        return None
    return data.scaling.offset, data.scaling.scale
