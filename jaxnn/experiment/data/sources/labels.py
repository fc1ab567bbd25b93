"""What a column of targets asks for: its task, its classes, and the targets as numbers."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import BINARY, MULTICLASS, REGRESSION
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

FEW_VALUES = 20
"""Whole numbers of so many values or fewer, and of two samples a value or more, are
classes where --task=auto."""

Complain = Callable[[int, str], UserError]
"""(row, problem) -> the error that names the row's place in its file."""


class Labels(NamedTuple):
    """Targets of a task.

    Attributes:
      task: "regression", "binary" or "multiclass".
      targets: as in `Dataset`.
      class_names: as in `Dataset`.
      classes: [samples] int to split by; None for regression.
    """

    task: str
    targets: np.ndarray
    class_names: tuple[str, ...]
    classes: np.ndarray | None


def interpret(experiment: Experiment, values: np.ndarray, complain: Complain) -> Labels:
    """Targets as read -> targets of a task. Classes are the values that occur, in
    order.

    Args:
      experiment: its `task`.
      values: [samples] text or float64; or [samples, outputs] float64 for regression.
      complain: makes the error at a row.

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
    if values.dtype.kind == "f":
        values = _whole(values, complain)
    names, classes = np.unique(values, return_inverse=True)
    return of_classes(classes, tuple(map(str, names)), task)


def of_classes(
    classes: np.ndarray, names: tuple[str, ...], task: str | None = None
) -> Labels:
    """Class numbers as targets.

    Args:
      classes: [samples] int, from 0.
      names: of the classes.
      task: "binary", "multiclass", or "auto": binary if there are two classes.

    Raises:
      UserError: there are too few classes, or too many to be binary.
    """
    if len(names) < 2:
        raise UserError(
            f"--data_path: all samples are of the class {''.join(names)!r}; there is "
            "nothing to tell apart"
        )
    task = (
        (BINARY if len(names) == 2 else MULTICLASS) if task in (None, "auto") else task
    )
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
    """Function of targets of classes -> [n, 1] float32: 1 at one class, 0 at all
    others.

    Raises:
      UserError: there is no such class.
    """
    if positive not in class_names:
        raise UserError(
            f"--positive_class: unknown class {positive!r}; known: "
            f"{shortened(class_names)}"
        )
    wanted = class_names.index(positive)
    return lambda targets: (targets.reshape(-1, 1) == wanted).astype(np.float32)


def shortened(names: tuple[str, ...]) -> str:
    """Names on one line, the first twenty of them."""
    return ", ".join(names[:20]) + (
        f", ... ({len(names)} in all)" if len(names) > 20 else ""
    )


def _auto(values: np.ndarray) -> str:
    if values.dtype.kind != "f":
        return "auto"
    if values.ndim == 2 or (values != np.round(values)).any():
        return REGRESSION
    return (
        "auto"
        if len(np.unique(values)) <= min(FEW_VALUES, len(values) // 2)
        else REGRESSION
    )


def _regression(values: np.ndarray, complain: Complain) -> Labels:
    if values.dtype.kind != "f":
        raise complain(
            0, f"holds {str(values[0])!r}, text; --task=regression needs numbers"
        )
    with np.errstate(over="ignore"):
        targets = values.astype(np.float32).reshape(len(values), -1)
    bad = ~np.isfinite(targets).all(axis=1)
    if bad.any():
        raise complain(int(bad.argmax()), "is not a finite number in float32's range")
    return Labels(REGRESSION, targets, (), None)


def _whole(values: np.ndarray, complain: Complain) -> np.ndarray:
    for bad, problem in (
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
