"""A data set in an .npz file of two NumPy arrays, x and y."""

import pathlib
import zipfile
import zlib

import numpy as np

from jaxnn.experiment import splits
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.dataset import Dataset
from jaxnn.experiment.options import UserError
from jaxnn.experiment.sources import features, labels


def npz(experiment: Experiment) -> Dataset:
    """The arrays of `--data_path`, as `numpy.savez(path, x=x, y=y)` writes them.

    x is a table [samples, features], sequences [samples, steps, features] or images [samples, height, width,
    channels]; bytes stay bytes where they are images, which may then lack the axis of channels. y is a label or
    number a sample, or [samples, outputs] numbers.

    Raises:
      UserError: the file or an array is not as it must be.
    """
    path = pathlib.Path(experiment.data_path)
    arrays = _read(path)
    inputs, values = _inputs(path, arrays["x"]), _targets(path, arrays["y"])
    if len(inputs) != len(values):
        raise UserError(f"--data_path: {path}: x has {len(inputs)} samples, y has {len(values)}")
    names = tuple(f"x{column}" for column in range(inputs.shape[1])) if inputs.ndim == 2 else ()
    if experiment.features:
        inputs, names = _choose(experiment, inputs, names)
    found = labels.interpret(experiment, values, lambda row, text: UserError(f"--data_path: {path}: y[{row}] {text}"))
    split = splits.shuffled(experiment, len(inputs), found.classes)
    return Dataset.of_splits(split, inputs, found.targets, found.task, class_names=found.class_names,
                             feature_names=names)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in ("x", "y") if name not in archive.files]
            if missing:
                raise UserError(f"--data_path: {path}: has no array {missing[0]!r}; it has {', '.join(archive.files)}")
            return {name: archive[name] for name in ("x", "y")}
    except OSError as error:
        raise UserError(f"--data_path: cannot read {path}: {error.strerror or error}") from None
    except (EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"--data_path: {path}: is not a whole .npz file of plain arrays "
                        f"({' '.join(str(error).split())}); write it with numpy.savez(path, x=x, y=y)") from None


def _inputs(path: pathlib.Path, inputs: np.ndarray) -> np.ndarray:
    if inputs.dtype.kind not in "biuf" or not 2 <= inputs.ndim <= 4 or 0 in inputs.shape:
        raise UserError(f"--data_path: {path}: x must hold numbers, [samples, features], [samples, steps, features] or "
                        f"[samples, height, width, channels]; got {inputs.dtype}{list(inputs.shape)}")
    if inputs.dtype == np.uint8 and inputs.ndim > 2:
        return inputs if inputs.ndim == 4 else inputs[..., None]
    with np.errstate(over="ignore"):
        inputs = inputs.astype(np.float32)
    bad = ~np.isfinite(inputs)
    if bad.any():
        place = ", ".join(map(str, np.argwhere(bad)[0]))
        raise UserError(f"--data_path: {path}: x[{place}] is not a finite number in float32's range")
    return inputs


def _targets(path: pathlib.Path, values: np.ndarray) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind not in "biufU" or values.ndim not in (1, 2) or 0 in values.shape:
        raise UserError(f"--data_path: {path}: y must be [samples] numbers or texts, or [samples, outputs] numbers, "
                        f"got {values.dtype}{list(values.shape)}")
    if values.dtype.kind == "U":
        return values
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise UserError(f"--data_path: {path}: y[{np.argwhere(bad)[0][0]}] is not a finite number")
    return values


def _choose(experiment: Experiment, inputs: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    if not names:
        raise UserError(f"--features: x of {experiment.data_path} is not a table, its shape is {list(inputs.shape)}")
    columns = features.chosen(experiment, names)
    return inputs[:, columns], tuple(names[column] for column in columns)
