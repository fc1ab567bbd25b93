"""What a data set is once it is loaded: arrays, split and scaled, and what they mean."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.description import Description
from jaxnn.experiment.data.lazy_rows import Rows, apply, pick
from jaxnn.experiment.data.preprocessing import HostScaling, Scaling
from jaxnn.experiment.data.splits import SplitIndices

REGRESSION, BINARY, MULTICLASS, LANGUAGE = (
    "regression",
    "binary",
    "multiclass",
    "language",
)
SPLITS = ("train", "validation", "test")
TABLE, SEQUENCE, IMAGE, TOKENS = "table", "sequence", "image", "tokens"


class Signature(NamedTuple):
    """What a network is built for.

    Attributes:
      input_shape: of one example: [features]; [steps, features]; [height, width,
        channels]; of tokens [steps].
      num_outputs: values or logits of an example, or of each of its steps.
      num_tokens: size of the vocabulary of token inputs; 0: the inputs are numbers.
      per_step: an output at each step instead of one an example.
    """

    input_shape: tuple[int, ...]
    num_outputs: int
    num_tokens: int = 0
    per_step: bool = False


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One supervised task.

    Attributes:
      train_inputs: [n, ...] float32; or uint8 images [n, height, width, channels], to
        be scaled where they are used; or int32 tokens [n, steps]. `Rows` of such, the
        validation's and the test's too, where files are mapped; targets never.
      train_targets: [n, outputs] float32 for regression, [n, 1] float32 of 0 and 1 for
        binary, [n] int32 class for multiclass, [n, steps] int32 token for language.
      test_inputs: as `train_inputs`.
      test_targets: as `train_targets`.
      task: "regression", "binary", "multiclass" or "language".
      class_names: names of the classes or tokens; empty for regression.
      validation_inputs: as `train_inputs`; None: no validation split.
      validation_targets: as `train_targets`; None: no validation split.
      feature_names: of a table's inputs, or empty.
      scaling: `HostScaling`: the inputs have been scaled so; `Scaling`: they are uint8
        and are to be; None: neither.
      description: what it takes to read new rows alike; see `describe`.
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
        """The data set whose splits are rows of `inputs` and `targets`.

        Args:
          split: indices; an empty validation split becomes None.
          inputs: [samples, ...]; `Rows` stay unread.
          targets: [samples, ...].
          task: of the data set.
          test: inputs and targets of a test split of its own, which is not among the
            rows.
          **more: further fields.
        """
        test_inputs, test_targets = test or (
            pick(inputs, split.test),
            targets[split.test],
        )
        held = split.validation
        validation = (pick(inputs, held), targets[held]) if len(held) else (None, None)
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
        """Width of the network's output: the values, one logit, or one logit a class or
        token."""
        if self.task == REGRESSION:
            return self.train_targets.shape[-1]
        return 1 if self.task == BINARY else len(self.class_names)

    @property
    def signature(self) -> Signature:
        """What a network for this task is built for."""
        tokens = len(self.class_names) if self.kind == TOKENS else 0
        return Signature(
            self.train_inputs.shape[1:], self.num_outputs, tokens, self.task == LANGUAGE
        )

    @property
    def kind(self) -> str:
        """Of an example: "table" (a row), "sequence", "image" or "tokens"."""
        if self.train_inputs.dtype == np.int32:
            return TOKENS
        return {3: SEQUENCE, 4: IMAGE}.get(self.train_inputs.ndim, TABLE)

    def map_inputs(self, function: Callable[[np.ndarray], np.ndarray]) -> "Dataset":
        """The data set with a function of each split's inputs in their place, of each
        row alone; `Rows` stay unread."""
        return self._map("inputs", function)

    def map_targets(self, function: Callable[[np.ndarray], np.ndarray]) -> "Dataset":
        """The data set with a function of the targets of each split in their place."""
        return self._map("targets", function)

    def _map(
        self, what: str, function: Callable[[np.ndarray], np.ndarray]
    ) -> "Dataset":
        arrays = {
            name: getattr(self, name)
            for name in (f"{split}_{what}" for split in SPLITS)
        }
        return dataclasses.replace(
            self,
            **{
                name: apply(function, array)
                for name, array in arrays.items()
                if array is not None
            },
        )

    @property
    def scaled_on_host(self) -> bool:
        """Whether `scaling` has been applied; False for uint8 images, which carry it to
        where they are used."""
        return isinstance(self.scaling, HostScaling)
