"""Data sets by name: NumPy arrays, split and scaled, the same in both stacks.

scikit-learn takes half a second to import, so what it loads and splits is kept in
`~/.cache/jaxnn/datasets` under a key made of everything that it depends on.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import tempfile
import zipfile

import numpy as np

from jaxnn.experiment.config import Experiment, UserError

REGRESSION, BINARY, MULTICLASS = "regression", "binary", "multiclass"
LOSSES = {REGRESSION: ("mse",), BINARY: ("binary_cross_entropy",), MULTICLASS: ("cross_entropy",)}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One supervised task.

    Attributes:
      train_inputs: [n, features] float32.
      train_targets: [n, 1] float32 for regression and binary (0 or 1); [n] int32 class for multiclass.
      test_inputs: [m, features] float32.
      test_targets: as `train_targets`.
      task: "regression", "binary" or "multiclass".
      class_names: names of the classes; empty for regression.
    """

    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    task: str
    class_names: tuple[str, ...] = ()

    @property
    def num_outputs(self) -> int:
        """Width of the network's output: one logit or value, or one logit a class."""
        return len(self.class_names) if self.task == MULTICLASS else 1


def load(experiment: Experiment) -> Dataset:
    """The experiment's data, split and preprocessed.

    Raises:
      UserError: the loss does not fit the task, or the batch is larger than the data.
    """
    data = DATASETS[experiment.dataset](experiment)
    if experiment.loss not in LOSSES[data.task]:
        raise UserError(f"--loss: {experiment.loss} does not fit --dataset={experiment.dataset} "
                        f"({data.task}); use {' or '.join(LOSSES[data.task])}")
    if experiment.batch_size > len(data.train_inputs):
        raise UserError(f"--batch_size: {experiment.batch_size} is larger than the "
                        f"{len(data.train_inputs)} training samples of --dataset={experiment.dataset}")
    return PREPROCESS[experiment.preprocess](data)


def linear(experiment: Experiment) -> Dataset:
    """y = 2x + 1 with x ~ N(0, 1), noise-free (seed document 000). `num_samples` train, a fifth more test."""
    rng = np.random.default_rng(experiment.split_seed)
    num_test = max(1, round(experiment.num_samples * experiment.test_fraction))
    inputs = rng.standard_normal((experiment.num_samples + num_test, 1), dtype=np.float32)
    train, test = np.split(inputs, [experiment.num_samples])
    return Dataset(train, 2 * train + 1, test, 2 * test + 1, REGRESSION)


def breast_cancer(experiment: Experiment) -> Dataset:
    """Breast Cancer Wisconsin: 569 samples, 30 features, malignant or benign (scikit-learn; seed document 004)."""
    inputs, targets, names = _from_sklearn("load_breast_cancer", experiment)
    return _dataset(inputs, [t.astype(np.float32)[:, None] for t in targets], BINARY, names)


def digits(experiment: Experiment) -> Dataset:
    """Optical Recognition of Handwritten Digits: 1,797 scans of 8x8 pixels, 10 classes (scikit-learn)."""
    inputs, targets, names = _from_sklearn("load_digits", experiment)
    return _dataset(inputs, [t.astype(np.int32) for t in targets], MULTICLASS, names)


def standardize(data: Dataset) -> Dataset:
    """Inputs with the training split's mean 0 and deviation 1; a constant feature becomes 0."""
    mean = data.train_inputs.mean(axis=0, dtype=np.float64)
    deviation = data.train_inputs.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1

    def scale(inputs: np.ndarray) -> np.ndarray:
        return ((inputs - mean) / deviation).astype(np.float32)

    return dataclasses.replace(data, train_inputs=scale(data.train_inputs), test_inputs=scale(data.test_inputs))


def _dataset(inputs: list, targets: list, task: str, names: tuple[str, ...]) -> Dataset:
    return Dataset(inputs[0], targets[0], inputs[1], targets[1], task, names)


def _from_sklearn(loader: str, experiment: Experiment) -> tuple[list, list, tuple[str, ...]]:
    """([train, test] inputs, [train, test] labels, class names), stratified and seeded."""
    key = repr((loader, experiment.test_fraction, experiment.split_seed, importlib.metadata.version("scikit-learn")))
    path = cache_folder() / "datasets" / f"{loader}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    arrays = _read_cache(path)
    if arrays is None:
        arrays = _load_and_split(loader, experiment)
        _write_cache(path, arrays)
    train_x, test_x, train_y, test_y, names = arrays
    return [train_x, test_x], [train_y, test_y], tuple(map(str, names))


def _load_and_split(loader: str, experiment: Experiment) -> list[np.ndarray]:
    import sklearn.datasets
    import sklearn.model_selection

    bunch = getattr(sklearn.datasets, loader)()
    try:
        parts = sklearn.model_selection.train_test_split(
            bunch.data.astype(np.float32), bunch.target, test_size=experiment.test_fraction,
            random_state=experiment.split_seed, stratify=bunch.target)
    except ValueError as error:
        raise UserError(f"--test_fraction: cannot split --dataset={experiment.dataset}: {error}") from None
    return [*parts, np.asarray(bunch.target_names).astype(str)]


def cache_folder() -> pathlib.Path:
    """Where jaxnn keeps what it can make again: `$JAXNN_CACHE`, else `~/.cache/jaxnn`."""
    return pathlib.Path(os.environ.get("JAXNN_CACHE") or pathlib.Path.home() / ".cache" / "jaxnn")


def _read_cache(path: pathlib.Path) -> list[np.ndarray] | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):  # absent or half-written: load from the source again
        return None


def _write_cache(path: pathlib.Path, arrays: list[np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            np.savez(file, *arrays)
        os.replace(file.name, path)
    except OSError as error:
        print(f"note: no data cache in {path.parent}: {error.strerror}")


DATASETS = {"linear": linear, "breast_cancer": breast_cancer, "digits": digits}
PREPROCESS = {"none": lambda data: data, "standardize": standardize}
