"""Targets of a column: which task they ask for, their classes, and their numbers."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.catalogue import BINARY, MULTICLASS, REGRESSION
from jaxnn.experiment.errors import UserError, one_line
from jaxnn.experiment.flags.config import Experiment

# With --task=auto, whole numbers are classes if they have at most this many distinct
# values, and two samples or more per value.
FEW_VALUES = 20

# Kinds of NumPy's dtypes that hold numbers; all others hold text.
NUMBERS = "fi"

# Names that `shortened` lists.
MOST_NAMES = 20

# (row, problem) -> the error that names the place of the row in its file.
Complain = Callable[[int, str], UserError]


class Labels(NamedTuple):
    """Targets of a task.

    Attributes:
      task: "regression", "binary" or "multiclass".
      targets: as in `Dataset`.
      class_names: as in `Dataset`.
      classes: [samples] int classes to stratify splits by; None for regression.
    """

    task: str
    targets: np.ndarray
    class_names: tuple[str, ...]
    classes: np.ndarray | None


def interpret(experiment: Experiment, values: np.ndarray, complain: Complain) -> Labels:
    """Turns targets as read into targets of a task; classes are the sorted values.

    Args:
      experiment: its `task`.
      values: [samples] text, float64 or int64; or [samples, outputs] numbers for
        regression.
      complain: makes the error about a row.

    Raises:
      UserError: the values do not suit the task.
    """
    task = _auto(values) if experiment.task == "auto" else experiment.task
    if task == REGRESSION:
        return _regression(values, complain)
    if values.ndim == 2:
        raise UserError(
            f"--task: {task} needs one label a sample, got {values.shape[1]} numbers; "
            "use regression"
        )
    if values.dtype.kind in NUMBERS:
        values = _whole(values, complain)
    names, classes = np.unique(values, return_inverse=True)
    return of_classes(classes, tuple(map(str, names)), task)


def of_classes(
    classes: np.ndarray, names: tuple[str, ...], task: str | None = None
) -> Labels:
    """Turns class indices into targets.

    Args:
      classes: [samples] int, from 0.
      names: names of the classes.
      task: "binary" or "multiclass"; "auto" or None: binary if there are two classes.

    Raises:
      UserError: there are too few classes, or too many for a binary task.
    """
    if len(names) < 2:
        raise UserError(
            f"--data_path: all samples are of the class {''.join(names)!r}; there is "
            "nothing to tell apart"
        )
    if task in (None, "auto"):
        task = BINARY if len(names) == 2 else MULTICLASS
    if task == MULTICLASS:
        return Labels(task, classes.astype(np.int32), names, classes)
    if len(names) > 2:
        raise UserError(
            f"--task: binary needs two classes, got {len(names)}: {shortened(names)}; "
            "use multiclass, or --positive_class"
        )
    return Labels(task, classes.astype(np.float32)[:, None], names, classes)


def one_against_all(
    class_names: tuple[str, ...], positive: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function: class targets -> [n, 1] float32, 1 for one class, else 0.

    Raises:
      UserError: there is no such class.
    """
    if positive not in class_names:
        raise UserError(
            f"--positive_class: unknown class {positive!r}; known: "
            f"{shortened(class_names)}"
        )
    wanted = class_names.index(positive)
    # Targets are [n] for multiclass and [n, 1] for binary.
    return lambda targets: (targets.reshape(-1, 1) == wanted).astype(np.float32)


def shortened(names: tuple[str, ...]) -> str:
    """Returns names on one line, at most `MOST_NAMES` of them."""
    text = one_line(", ".join(names[:MOST_NAMES]))
    if len(names) > MOST_NAMES:
        text += f", ... ({len(names)} in all)"
    return text


def _auto(values: np.ndarray) -> str:
    """Returns "regression" or "auto", which leaves binary or multiclass open."""
    if values.dtype.kind not in NUMBERS:
        return "auto"
    if values.ndim == 2 or (values != np.round(values)).any():
        return REGRESSION
    is_few = len(np.unique(values)) <= min(FEW_VALUES, len(values) // 2)
    return "auto" if is_few else REGRESSION


def _regression(values: np.ndarray, complain: Complain) -> Labels:
    if values.dtype.kind not in NUMBERS:
        raise complain(
            0, f"holds {str(values[0])!r}, text; --task=regression needs numbers"
        )
    # An overflow is reported below, with its row.
    with np.errstate(over="ignore"):
        targets = values.astype(np.float32).reshape(len(values), -1)
    bad = ~np.isfinite(targets).all(axis=1)
    if bad.any():
        raise complain(int(bad.argmax()), "is not a finite number in float32's range")
    return Labels(REGRESSION, targets, (), None)


def _whole(values: np.ndarray, complain: Complain) -> np.ndarray:
    """Returns labels as int64: whole numbers from 0, or -1 and 1."""
    if len(values) and values.min() == -1 and (np.abs(values) == 1).all():
        # What textbooks call the classes of hinge loss and perceptron.
        return values.astype(np.int64)
    for bad, problem in (
        (np.abs(values) >= 2.0**63, "is beyond 64 bits; put a letter before labels"),
        (values != np.round(values), "is not whole; classes are whole numbers from 0"),
        (values < 0, "is negative; classes are whole numbers from 0"),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise complain(
                row,
                f"holds the label {values[row]:g}, which {problem}, or use "
                "--task=regression",
            )
    return values.astype(np.int64)
