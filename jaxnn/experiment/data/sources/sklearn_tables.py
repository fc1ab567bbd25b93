"""Small real data sets that come with scikit-learn.

Importing scikit-learn takes half a second, so the arrays are kept in the cache.
"""

import importlib.metadata

import numpy as np

from jaxnn.experiment.catalogue import BINARY, MULTICLASS, REGRESSION
from jaxnn.experiment.data import splits
from jaxnn.experiment.data.cache import cached
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.sources import features, labels
from jaxnn.experiment.flags.config import Experiment


def iris(experiment: Experiment) -> Dataset:
    """Fisher's irises: 150 flowers, 4 lengths in cm, 3 species."""
    return _table(experiment, "load_iris", MULTICLASS)


def wine(experiment: Experiment) -> Dataset:
    """Wines of three growers: 178 samples, 13 measurements, 3 classes."""
    return _table(experiment, "load_wine", MULTICLASS)


def diabetes(experiment: Experiment) -> Dataset:
    """Diabetes progression in a year (25 to 346): 442 patients, 10 measurements."""
    return _table(experiment, "load_diabetes", REGRESSION)


def breast_cancer(experiment: Experiment) -> Dataset:
    """Breast Cancer Wisconsin: 569 samples, 30 features, malignant or benign."""
    return _table(experiment, "load_breast_cancer", BINARY)


def digits(experiment: Experiment) -> Dataset:
    """Optical Recognition of Handwritten Digits: 1,797 8x8 scans, 10 classes.

    Pixels are from 0 to 16.
    """
    return _table(experiment, "load_digits", MULTICLASS).map_inputs(
        lambda inputs: inputs.reshape(-1, 8, 8, 1)
    )


def _table(experiment: Experiment, loader: str, task: str) -> Dataset:
    """Returns the data set of a loader, a function of sklearn.datasets."""
    key = (loader, importlib.metadata.version("scikit-learn"))
    inputs, targets, class_names, feature_names = cached(
        loader, key, lambda: _load(loader)
    )
    columns = features.chosen(experiment, [str(name) for name in feature_names])
    feature_names = tuple(map(str, feature_names[columns]))

    if task == REGRESSION:
        split = splits.shuffled(experiment, len(inputs))
        targets = targets.astype(np.float32)[:, None]
        return Dataset.of_splits(
            split, inputs[:, columns], targets, task, feature_names=feature_names
        )

    found = labels.of_classes(targets, tuple(map(str, class_names)), task)
    split = splits.shuffled(experiment, len(inputs), targets)
    return Dataset.of_splits(
        split,
        inputs[:, columns],
        found.targets,
        task,
        class_names=found.class_names,
        feature_names=feature_names,
    )


def _load(loader: str) -> list[np.ndarray]:
    """Returns [inputs, targets, class names, feature names], none of them objects."""
    import sklearn.datasets

    # By default the diabetes features are scaled over all samples, those of the test
    # split included.
    more = {"scaled": False} if loader == "load_diabetes" else {}
    bunch = getattr(sklearn.datasets, loader)(**more)
    return [
        bunch.data.astype(np.float32),
        bunch.target,
        np.asarray(bunch.get("target_names", [])).astype(str),
        np.asarray(bunch.feature_names).astype(str),
    ]
