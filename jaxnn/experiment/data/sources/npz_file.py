"""A data set in files of two NumPy arrays, x and y, which may be larger than memory."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxnn.experiment.data import lazy_rows, splits
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.lazy_rows import Rows
from jaxnn.experiment.data.sources import array_files, features, labels
from jaxnn.experiment.data.sources.array_files import Shard
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

Place = Callable[[int], tuple[Shard, int]]
"""Sample of the data set -> the part that holds it and its row there."""


def npz(experiment: Experiment) -> Dataset:
    """The arrays of `--data_path`, as `numpy.savez(path, x=x, y=y)` writes them, or
    x.npy and y.npy in a folder.

    x is a table [samples, features], sequences [samples, steps, features] or images
    [samples, height, width, channels]; bytes stay bytes where they are images, which
    may then lack the axis of channels. y is a label or number a sample, or [samples,
    outputs] numbers. Several files, a list or a pattern, are one data set, in the order
    of their names; folders may hold x_000.npy, y_000.npy, x_001.npy, ....

    Files of `array_files.MAPPED_FROM` bytes together or more are mapped: the inputs of
    the splits are `Rows`, and a row is read, and found to be finite, when it is used. y
    is read at once, and so are compressed arrays.

    Raises:
      UserError: a file or an array is not as it must be, or one does not fit the
        others.
    """
    parts, mapped = array_files.read(experiment.data_path)
    _check_alike(parts)
    place = _places(parts)
    inputs, values = _inputs(parts, place, mapped), _targets(parts, place)
    names = (
        tuple(f"x{column}" for column in range(inputs.shape[1]))
        if inputs.ndim == 2
        else ()
    )
    if experiment.features:
        inputs, names = _choose(experiment, inputs, names)
    found = labels.interpret(
        experiment, values, lambda row, text: _wrong_y(place(row), text)
    )
    split = splits.shuffled(experiment, len(inputs), found.classes)
    return Dataset.of_splits(
        split,
        inputs,
        found.targets,
        found.task,
        class_names=found.class_names,
        feature_names=names,
    )


def _check_alike(parts: Sequence[Shard]) -> None:
    """Raises UserError on the first array that is not what x or y must be, or not as in
    the first file."""
    for part in parts:
        x, y = part.x, part.y
        if x.dtype.kind not in "biuf" or not 2 <= x.ndim <= 4 or 0 in x.shape:
            raise UserError(
                f"--data_path: {part.x_path}: x must hold numbers, [samples, "
                "features], [samples, steps, features] or [samples, height, width, "
                f"channels]; got {x.dtype}{list(x.shape)}"
            )
        if y.dtype.kind not in "biufU" or y.ndim not in (1, 2) or 0 in y.shape:
            raise UserError(
                f"--data_path: {part.y_path}: y must be [samples] numbers or texts, or "
                f"[samples, outputs] numbers, got {y.dtype}{list(y.shape)}"
            )
        if len(x) != len(y):
            raise UserError(
                f"--data_path: {part.x_path}: x has {len(x)} samples, y has {len(y)}"
            )
        for name, ours, first, path in (
            ("x", x, parts[0].x, part.x_path),
            ("y", y, parts[0].y, part.y_path),
        ):
            if _example(ours) != _example(first):
                raise UserError(
                    f"--data_path: {path}: {name} holds {_example(ours)} a sample, and "
                    f"{_example(first)} in "
                    f"{parts[0].x_path if name == 'x' else parts[0].y_path}"
                )


def _example(array: np.ndarray) -> str:
    """What a sample of an array is; texts may be of different lengths."""
    return (
        f"{'text' if array.dtype.kind == 'U' else array.dtype}{list(array.shape[1:])}"
    )


def _places(parts: Sequence[Shard]) -> Place:
    starts = np.cumsum([0, *(len(part.x) for part in parts)])

    def place(sample: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(starts, sample, side="right")) - 1
        return parts[number], int(sample - starts[number])

    return place


def _inputs(parts: Sequence[Shard], place: Place, mapped: bool) -> np.ndarray | Rows:
    arrays = [part.x for part in parts]
    if arrays[0].dtype == np.uint8 and arrays[0].ndim > 2:
        inputs = lazy_rows.concatenate(arrays)
        inputs = (
            inputs if inputs.ndim == 4 else inputs.map(lambda images: images[..., None])
        )
    else:
        inputs = lazy_rows.concatenate(
            arrays, lambda values, samples: _finite(values, samples, place)
        )
    return inputs if mapped else np.asarray(inputs)


def _finite(values: np.ndarray, samples: np.ndarray, place: Place) -> np.ndarray:
    """Inputs in float32; UserError on one that is none."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        first, *within = np.argwhere(bad)[0]
        part, row = place(samples[first])
        raise UserError(
            f"--data_path: {part.x_path}: x[{', '.join(map(str, (row, *within)))}] is "
            "not a finite number in float32's range"
        )
    return values


def _targets(parts: Sequence[Shard], place: Place) -> np.ndarray:
    values = np.concatenate([part.y for part in parts])
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "U":
        return values
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise _wrong_y(place(np.argwhere(bad)[0][0]), "is not a finite number")
    return values


def _wrong_y(place: tuple[Shard, int], problem: str) -> UserError:
    part, row = place
    return UserError(f"--data_path: {part.y_path}: y[{row}] {problem}")


def _choose(
    experiment: Experiment, inputs: np.ndarray | Rows, names: tuple[str, ...]
) -> tuple[np.ndarray | Rows, tuple[str, ...]]:
    if not names:
        raise UserError(
            f"--features: x of {experiment.data_path} is not a table, its shape is "
            f"{list(inputs.shape)}"
        )
    columns = features.chosen(experiment, names)
    return lazy_rows.apply(lambda table: table[:, columns], inputs), tuple(
        names[column] for column in columns
    )
