"""Splits into training, validation and test data: index arrays from seed and labels."""

import hashlib
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.cache import cached
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


class SplitIndices(NamedTuple):
    """Disjoint sample indices.

    Attributes:
      train: [n] int.
      validation: [v] int; empty: no validation split.
      test: [m] int.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def shuffled(
    experiment: Experiment, num_samples: int, labels: np.ndarray | None = None
) -> SplitIndices:
    """Splits independent samples at random: by `--test_fraction`, or into folds.

    Args:
      experiment: its data flags.
      num_samples: number of samples.
      labels: [num_samples] classes to stratify by, or None.

    Raises:
      UserError: there are too few samples, or too few of a class.
    """
    flag = "--num_folds" if experiment.num_folds else "--test_fraction"
    split_test = _fold if experiment.num_folds else _hold_out_test

    def make() -> list[np.ndarray]:
        train, test = split_test(experiment, num_samples, labels)
        return [*_validation(experiment, train, labels), test]

    return _cached(experiment, flag, num_samples, labels, make)


def held_out(
    experiment: Experiment, num_samples: int, labels: np.ndarray | None = None
) -> SplitIndices:
    """Splits off validation data where the data set has an official test split.

    `test` is empty.

    Args:
      experiment: its data flags.
      num_samples: number of training samples.
      labels: [num_samples] classes to stratify by, or None.

    Raises:
      UserError: `--num_folds` is given, or there are too few samples.
    """
    refuse_folds(experiment, "brings a test split of its own")
    train = np.arange(num_samples)
    none = np.arange(0)
    if not experiment.validation_fraction:
        return SplitIndices(train, none, none)
    return _cached(
        experiment,
        "held out",
        num_samples,
        labels,
        lambda: [*_validation(experiment, train, labels), none],
    )


def drawn_on_top(experiment: Experiment) -> int:
    """Returns how many test samples to draw beside `--num_samples` for training."""
    return max(1, round(experiment.num_samples * experiment.test_fraction))


def contiguous(experiment: Experiment, length: int) -> tuple[slice, slice, slice]:
    """Splits a series in time: training, then validation, then test.

    Args:
      experiment: its data flags.
      length: length of the series.

    Raises:
      UserError: `--num_folds` is given.
    """
    refuse_folds(experiment, "is split in time")
    num_test = round(length * experiment.test_fraction)
    num_validation = round((length - num_test) * experiment.validation_fraction)
    train = length - num_test - num_validation
    return (
        slice(0, train),
        slice(train, length - num_test),
        slice(length - num_test, length),
    )


def refuse_folds(experiment: Experiment, reason: str) -> None:
    """Raises UserError with a reason if k-fold cross-validation is asked for."""
    if experiment.num_folds:
        raise UserError(
            f"--num_folds: --dataset={experiment.dataset} {reason}; leave out "
            "--num_folds and --fold"
        )


def _cached(
    experiment: Experiment,
    kind: str,
    num_samples: int,
    labels: np.ndarray | None,
    make: Callable[[], list[np.ndarray]],
) -> SplitIndices:
    """Returns the split that `make` makes, without importing scikit-learn again."""
    digest = ""
    if labels is not None:
        digest = hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
    key = (
        kind,
        num_samples,
        digest,
        experiment.test_fraction,
        experiment.validation_fraction,
        experiment.num_folds,
        experiment.fold,
        experiment.split_seed,
        # Another version may shuffle differently.
        importlib.metadata.version("scikit-learn"),
    )
    return SplitIndices(*cached("split", key, make))


def _hold_out_test(
    experiment: Experiment, num_samples: int, labels: np.ndarray | None
) -> list[np.ndarray]:
    return _train_test_split(
        experiment, "test_fraction", np.arange(num_samples), labels
    )


def _validation(
    experiment: Experiment, train: np.ndarray, labels: np.ndarray | None
) -> list[np.ndarray]:
    """Returns [training, validation] indices out of training indices."""
    if not experiment.validation_fraction:
        return [train, train[:0]]
    labels = None if labels is None else labels[train]
    return _train_test_split(experiment, "validation_fraction", train, labels)


def _train_test_split(
    experiment: Experiment, flag: str, indices: np.ndarray, labels: np.ndarray | None
) -> list[np.ndarray]:
    # Imported when the cache has no split: it takes half a second.
    from sklearn.model_selection import train_test_split

    try:
        train, held_out = train_test_split(
            indices,
            test_size=getattr(experiment, flag),
            random_state=experiment.split_seed,
            stratify=labels,
        )
    except ValueError as error:
        raise _cannot_split(experiment, flag, _rare(labels) or error) from None
    return [np.asarray(train), np.asarray(held_out)]


def _fold(
    experiment: Experiment, num_samples: int, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import KFold, StratifiedKFold

    kind = KFold if labels is None else StratifiedKFold
    folds = kind(experiment.num_folds, shuffle=True, random_state=experiment.split_seed)
    try:
        # scikit-learn only warns if a class has fewer samples than there are folds.
        with warnings.catch_warnings(action="error"):
            return list(folds.split(np.zeros(num_samples), labels))[experiment.fold]
    except (ValueError, UserWarning) as error:
        raise _cannot_split(experiment, "num_folds", error) from None


def _rare(labels: np.ndarray | None) -> str:
    """Returns how many classes have one sample, which no two splits can share."""
    counts = (
        np.array([]) if labels is None else np.unique(labels, return_counts=True)[1]
    )
    rare = int((counts == 1).sum())
    if not rare:
        return ""
    return (
        f"{rare} of {len(counts)} classes have a single sample, and each needs two; "
        "leave those samples out, or use --task=regression for numbers"
    )


def _cannot_split(
    experiment: Experiment, flag: str, error: Exception | str
) -> UserError:
    return UserError(
        f"--{flag}: cannot split --dataset={experiment.dataset}: "
        f"{' '.join(str(error).split())}"
    )
