"""Data sets in NumPy files with arrays x and y, which may be larger than memory."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxnn.experiment.data import lazy_rows, rounding, splits
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.lazy_rows import Rows
from jaxnn.experiment.data.sources import array_files, features, labels
from jaxnn.experiment.data.sources.array_files import Shard
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

# Index of a sample in the data set -> its shard and its row there.
Place = Callable[[int], tuple[Shard, int]]


def npz(experiment: Experiment) -> Dataset:
    """Returns the data set in the files of `--data_path`.

    The files are those of `numpy.savez(path, x=x, y=y)`, or x.npy and y.npy in a
    folder. Several files, given as a list or a pattern, form one data set in the order
    of their names; a folder may hold x_000.npy, y_000.npy, x_001.npy, ....

    x is a table [samples, features], sequences [samples, steps, features] or images
    [samples, height, width, channels]. Images of bytes stay bytes and may lack the
    channel axis. y is [samples] labels or numbers, or [samples, outputs] numbers.

    If the files have `array_files.MAPPED_FROM` bytes or more, inputs are memory-mapped
    `Rows`: a row is read, and checked to be finite, when it is used. y is always read
    at once, and so are compressed arrays.

    Raises:
      UserError: something is wrong with a file or an array, or one does not fit the
        others.
    """
    shards, mapped = array_files.read(experiment.data_path)
    _check_alike(shards)
    place = _places(shards)
    inputs = _inputs(shards, place, mapped)
    values = _targets(shards, place)

    names = ()
    if inputs.ndim == 2:
        names = tuple(f"x{column}" for column in range(inputs.shape[1]))
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
        notes=tuple(rounding.target_notes("y", values, found.task)),
    )


def _check_alike(shards: Sequence[Shard]) -> None:
    """Raises UserError on the first x or y that is not allowed or unlike the first."""
    first = shards[0]
    for shard in shards:
        x = shard.x
        y = shard.y
        if x.dtype.kind not in "biuf" or not 2 <= x.ndim <= 4 or 0 in x.shape:
            raise UserError(
                f"--data_path: {shard.x_path}: x must hold numbers, [samples, "
                "features], [samples, steps, features] or [samples, height, width, "
                f"channels]; got {x.dtype}{list(x.shape)}"
            )
        if y.dtype.kind not in "biufU" or y.ndim not in (1, 2) or 0 in y.shape:
            raise UserError(
                f"--data_path: {shard.y_path}: y must be [samples] numbers or texts, "
                f"or [samples, outputs] numbers, got {y.dtype}{list(y.shape)}"
            )
        if len(x) != len(y):
            raise UserError(
                f"--data_path: {shard.x_path}: x has {len(x)} samples, y has {len(y)}"
            )
        for name, ours, path, theirs, their_path in (
            ("x", x, shard.x_path, first.x, first.x_path),
            ("y", y, shard.y_path, first.y, first.y_path),
        ):
            if _example(ours) != _example(theirs):
                raise UserError(
                    f"--data_path: {path}: {name} holds {_example(ours)} a sample, and "
                    f"{_example(theirs)} in {their_path}"
                )


def _example(array: np.ndarray) -> str:
    """Returns dtype and shape of one sample."""
    # Texts of different lengths have different dtypes, "<U3" and "<U5".
    dtype = "text" if array.dtype.kind == "U" else array.dtype
    return f"{dtype}{list(array.shape[1:])}"


def _places(shards: Sequence[Shard]) -> Place:
    # Index of the first sample of each shard, and of the end.
    starts = np.cumsum([0, *(len(shard.x) for shard in shards)])

    def place(sample: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(starts, sample, side="right")) - 1
        return shards[number], int(sample - starts[number])

    return place


def _inputs(shards: Sequence[Shard], place: Place, mapped: bool) -> np.ndarray | Rows:
    arrays = [shard.x for shard in shards]
    if arrays[0].dtype == np.uint8 and arrays[0].ndim > 2:
        # Images of bytes stay as they are, and are always finite.
        inputs = lazy_rows.concatenate(arrays)
        if inputs.ndim == 3:
            inputs = inputs.map(lambda images: images[..., None])
    else:
        inputs = lazy_rows.concatenate(
            arrays, lambda values, samples: _finite(values, samples, place)
        )
    return inputs if mapped else np.asarray(inputs)


def _finite(values: np.ndarray, samples: np.ndarray, place: Place) -> np.ndarray:
    """Returns inputs unrounded; raises UserError on one beyond float32's range."""
    values = _exact(values)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(values.astype(np.float32))
    if bad.any():
        first, *within = np.argwhere(bad)[0]
        shard, row = place(int(samples[first]))
        index = ", ".join(map(str, (row, *within)))
        raise UserError(
            f"--data_path: {shard.x_path}: x[{index}] is not a finite number in "
            "float32's range"
        )
    return values


def _exact(values: np.ndarray) -> np.ndarray:
    """Returns numbers in the smallest of float32, float64 and int64 that holds them."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b" or (kind in "iu" and size < 4) or (kind == "f" and size <= 4):
        return values.astype(np.float32, copy=False)
    # Whole numbers may be beyond 2^53, from where float64 does not hold them all.
    return values.astype(
        np.int64 if values.dtype == np.int64 else np.float64, copy=False
    )


def _targets(shards: Sequence[Shard], place: Place) -> np.ndarray:
    """Returns [samples] text, int64 or float64, or [samples, outputs] numbers."""
    values = np.concatenate([shard.y for shard in shards])
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "U":
        return values
    if values.dtype.kind in "iu" and values.dtype != np.uint64:
        return values.astype(np.int64)
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise _wrong_y(place(np.argwhere(bad)[0][0]), "is not a finite number")
    return values


def _wrong_y(place: tuple[Shard, int], problem: str) -> UserError:
    shard, row = place
    return UserError(f"--data_path: {shard.y_path}: y[{row}] {problem}")


def _choose(
    experiment: Experiment, inputs: np.ndarray | Rows, names: tuple[str, ...]
) -> tuple[np.ndarray | Rows, tuple[str, ...]]:
    """Returns the columns that `--features` lists, and their names."""
    if not names:
        raise UserError(
            f"--features: x of {experiment.data_path} is not a table, its shape is "
            f"{list(inputs.shape)}"
        )
    columns = features.chosen(experiment, names)
    chosen = lazy_rows.apply(lambda table: table[:, columns], inputs)
    return chosen, tuple(names[column] for column in columns)
