"""`Dataset`: the arrays of a supervised task, split and scaled, with their meaning."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.catalogue import (
    BINARY,
    IMAGE,
    LANGUAGE,
    REGRESSION,
    SEQUENCE,
    TABLE,
    TOKENS,
)
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.data.lazy_rows import Rows, apply, pick
from jaxnn.experiment.data.preprocessing import HostScaling, Scaling
from jaxnn.experiment.data.splits import SplitIndices

SPLITS = ("train", "validation", "test")


class Signature(NamedTuple):
    """Shapes that a network is built for.

    Attributes:
      input_shape: shape of one example: [features], [steps, features], [height, width,
        channels], or [steps] tokens.
      num_outputs: values or logits per example, or per step of an example.
      num_tokens: vocabulary size of token inputs; 0: inputs are numbers.
      per_step: True for an output at each step, False for one per example.
    """

    input_shape: tuple[int, ...]
    num_outputs: int
    num_tokens: int = 0
    per_step: bool = False

    @property
    def input_dtype(self) -> np.dtype:
        """Dtype of the inputs: int32 tokens, else float32."""
        return np.dtype(np.int32 if self.num_tokens else np.float32)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One supervised task.

    Inputs are arrays, or `Rows` if they are memory-mapped; targets are always arrays.

    Attributes:
      train_inputs: [n, ...] float32, before scaling also float64 or int64; or [n,
        height, width, channels] uint8 images, which are scaled on the device; or [n,
        steps] int32 tokens.
      train_targets: [n, outputs] float32 for regression, [n, 1] float32 of 0 and 1 for
        binary, [n] int32 classes for multiclass, [n, steps] int32 tokens for language.
      test_inputs: as `train_inputs`.
      test_targets: as `train_targets`.
      task: "regression", "binary", "multiclass" or "language".
      class_names: names of the classes or tokens; empty for regression.
      validation_inputs: as `train_inputs`, or None without a validation split.
      validation_targets: as `train_targets`, or None without a validation split.
      feature_names: names of the columns of a table, or empty.
      scaling: `HostScaling` that was applied to the inputs; `Scaling` to apply to uint8
        images on the device; None: no scaling.
      description: what is needed to encode new rows like these; see description.py.
      notes: lines for who trains: what was read from a file, and what was lost.
    """

    train_inputs: np.ndarray | Rows
    train_targets: np.ndarray
    test_inputs: np.ndarray | Rows
    test_targets: np.ndarray
    task: str
    class_names: tuple[str, ...] = ()
    validation_inputs: np.ndarray | Rows | None = None
    validation_targets: np.ndarray | None = None
    feature_names: tuple[str, ...] = ()
    scaling: Scaling | HostScaling | None = None
    description: Description | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of_splits(
        cls,
        split: SplitIndices,
        inputs: np.ndarray | Rows,
        targets: np.ndarray,
        task: str,
        *,
        test: tuple[np.ndarray, np.ndarray] | None = None,
        **more,
    ) -> "Dataset":
        """Returns the data set whose splits are rows of `inputs` and `targets`.

        Args:
          split: row indices; an empty validation split becomes None.
          inputs: [samples, ...] arrays, or `Rows`, which stay unread.
          targets: [samples, ...] targets.
          task: task of the data set.
          test: inputs and targets of an official test split, which is not among the
            rows.
          **more: further fields.
        """
        test_inputs, test_targets = test or (
            pick(inputs, split.test),
            targets[split.test],
        )
        validation = (None, None)
        if len(split.validation):
            validation = (
                pick(inputs, split.validation),
                targets[split.validation],
            )
        return cls(
            pick(inputs, split.train),
            targets[split.train],
            test_inputs,
            test_targets,
            task,
            validation_inputs=validation[0],
            validation_targets=validation[1],
            **more,
        )

    @property
    def num_outputs(self) -> int:
        """Width of the network's output: values, one logit, or logits by class."""
        if self.task == REGRESSION:
            return self.train_targets.shape[-1]
        return 1 if self.task == BINARY else len(self.class_names)

    @property
    def signature(self) -> Signature:
        """Shapes of a network for this task."""
        tokens = len(self.class_names) if self.kind == TOKENS else 0
        return Signature(
            self.train_inputs.shape[1:], self.num_outputs, tokens, self.task == LANGUAGE
        )

    @property
    def kind(self) -> str:
        """Kind of an example: "table" (a row), "sequence", "image" or "tokens"."""
        # Only tokens are int32; the others are told apart by their rank.
        if self.train_inputs.dtype == np.int32:
            return TOKENS
        return {3: SEQUENCE, 4: IMAGE}.get(self.train_inputs.ndim, TABLE)

    def map_inputs(self, function: Callable[[np.ndarray], np.ndarray]) -> "Dataset":
        """Applies a row-wise function to the inputs of each split, lazily to `Rows`."""
        return self._map("inputs", function)

    def map_targets(self, function: Callable[[np.ndarray], np.ndarray]) -> "Dataset":
        """Applies a function to the targets of each split."""
        return self._map("targets", function)

    def _map(
        self, what: str, function: Callable[[np.ndarray], np.ndarray]
    ) -> "Dataset":
        names = [f"{split}_{what}" for split in SPLITS]
        arrays = {name: getattr(self, name) for name in names}
        changed = {
            name: apply(function, array)
            for name, array in arrays.items()
            if array is not None
        }
        return dataclasses.replace(self, **changed)

    @property
    def scaled_on_host(self) -> bool:
        """True if the inputs have been scaled; False if uint8 images are to be."""
        return isinstance(self.scaling, HostScaling)
