"""Data sets by name: loads, checks, splits and scales, the same for both stacks."""

import dataclasses

import numpy as np

from jaxnn.experiment.catalogue import (
    BINARY,
    IMAGE,
    MULTICLASS,
    SEQUENCE,
    TABLE,
    TOKENS,
    facts_on,
    losses_for,
)
from jaxnn.experiment.data import half_range, preprocessing, rounding, sizes
from jaxnn.experiment.data.alignment import aligned
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.description import Column, Description
from jaxnn.experiment.data.lazy_rows import Rows
from jaxnn.experiment.data.sources.csv_file import csv
from jaxnn.experiment.data.sources.generated import approximation, gates, linear
from jaxnn.experiment.data.sources.images import cifar10, fashion_mnist, mnist
from jaxnn.experiment.data.sources.labels import one_against_all
from jaxnn.experiment.data.sources.npz_file import npz
from jaxnn.experiment.data.sources.playground import PLAYGROUND
from jaxnn.experiment.data.sources.random_classes import blobs, markov
from jaxnn.experiment.data.sources.series import sine
from jaxnn.experiment.data.sources.sklearn_tables import (
    breast_cancer,
    diabetes,
    digits,
    iris,
    wine,
)
from jaxnn.experiment.data.sources.text import text
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

# Kind of example -> its name in messages, with the data sets that have it.
KINDS = {
    TABLE: "rows of a table",
    IMAGE: "images (digits, mnist, fashion_mnist, cifar10, blobs, npz)",
    SEQUENCE: "sequences (sine, blobs, npz)",
    TOKENS: "text (text, markov)",
}

# Flag that is empty by default -> data sets that use it.
USED_BY = {
    "data_path": ("text", "csv", "npz", "mnist", "fashion_mnist", "cifar10"),
    "target": ("csv",),
    "delimiter": ("csv",),
    "decimal": ("csv",),
    "noheader": ("csv",),
    "sample_shape": ("blobs",),
    "num_classes": ("blobs", "markov"),
    "noise": tuple(PLAYGROUND),
    "features": ("iris", "breast_cancer", "wine", "diabetes", "csv", "npz"),
}


def load_dataset(experiment: Experiment) -> Dataset:
    """Returns the data set of an experiment, split and preprocessed.

    Raises:
      UserError: the data cannot be loaded as the flags say, the loss or the model does
        not suit them, the batch is larger than the training split, or memory holds
        neither data nor network.
    """
    _refuse_idle_flags(experiment)
    sizes.check_samples(experiment)
    data = DATASETS[experiment.dataset](experiment)
    if experiment.positive_class:
        data = _with_positive_class(experiment, data)
    _check_loss(experiment, data)
    _check_model(experiment, data)
    _check_augmentation(experiment, data)
    _check_batch(experiment, data)
    sizes.check_network(experiment, data.signature)
    data = _aligned(_scaled(experiment, data))
    # Last, because the description holds the task and the scaling.
    return dataclasses.replace(data, description=_description(data))


def _refuse_idle_flags(experiment: Experiment) -> None:
    """Raises UserError on a flag that has no effect on this data set."""
    for flag, users in USED_BY.items():
        if getattr(experiment, flag) and experiment.dataset not in users:
            raise UserError(
                f"--{flag}: is for --dataset={', '.join(users)}; leave it out for "
                f"{experiment.dataset}"
            )


def _with_positive_class(experiment: Experiment, data: Dataset) -> Dataset:
    """Turns a task with classes into "positive class or not"."""
    positive = experiment.positive_class
    if data.task not in (BINARY, MULTICLASS):
        raise UserError(
            f"--positive_class: --dataset={experiment.dataset} has no classes "
            f"({data.task}); leave it out"
        )
    binary = data.map_targets(one_against_all(data.class_names, positive))
    return dataclasses.replace(
        binary, task=BINARY, class_names=(f"not {positive}", positive)
    )


def _check_loss(experiment: Experiment, data: Dataset) -> None:
    losses = losses_for(data.task)
    if experiment.loss not in losses:
        raise UserError(
            f"--loss: {experiment.loss} does not fit --dataset={experiment.dataset} "
            f"({data.task}); use {' or '.join(losses)}"
        )


def _check_model(experiment: Experiment, data: Dataset) -> None:
    needs = facts_on(experiment.model).examples
    if data.kind not in needs:
        raise UserError(
            f"--model: {experiment.model} needs "
            f"{' or '.join(KINDS[kind] for kind in needs)}; "
            f"--dataset={experiment.dataset} has {KINDS[data.kind].split(' (')[0]}"
        )


def _check_augmentation(experiment: Experiment, data: Dataset) -> None:
    margin = experiment.random_crop
    for flag in ("random_crop", "random_flip"):
        if getattr(experiment, flag) and data.kind != IMAGE:
            raise UserError(
                f"--{flag}: is for {KINDS[IMAGE]}; --dataset={experiment.dataset} has "
                f"{KINDS[data.kind].split(' (')[0]}; leave it out"
            )
    # Beyond, a crop may hold nothing of its image.
    if margin and margin >= min(data.train_inputs.shape[1:3]):
        height, width = data.train_inputs.shape[1:3]
        raise UserError(
            f"--random_crop: {margin} is not below the size of the images, {height} by "
            f"{width}; lower it, e.g. to 4"
        )


def _check_batch(experiment: Experiment, data: Dataset) -> None:
    if experiment.batch_size > len(data.train_inputs):
        raise UserError(
            f"--batch_size: {experiment.batch_size} is larger than the "
            f"{len(data.train_inputs)} training samples of "
            f"--dataset={experiment.dataset}"
        )


def _scaled(experiment: Experiment, data: Dataset) -> Dataset:
    """Fits the scaling and applies it, except to images of bytes; then rounds."""
    if experiment.preprocess != "none" and data.kind == TOKENS:
        raise UserError(
            f"--preprocess: {experiment.preprocess} scales numbers, and "
            f"--dataset={experiment.dataset} has characters; leave it out"
        )
    scaling = preprocessing.fit(experiment.preprocess, data.train_inputs)
    data = dataclasses.replace(data, scaling=scaling)
    if data.kind == TOKENS or data.train_inputs.dtype == np.uint8:
        return data

    def scaled(inputs: np.ndarray) -> np.ndarray:
        if scaling is None:
            return inputs.astype(np.float32, copy=False)
        inputs = scaling.apply(inputs)
        if not np.isfinite(inputs).all():
            raise UserError(
                f"--preprocess: {experiment.preprocess} takes "
                f"--dataset={experiment.dataset} beyond float32's range; leave it out"
            )
        return inputs

    rounded = data.map_inputs(scaled)
    rounded = dataclasses.replace(
        rounded, notes=(*data.notes, *rounding.notes(experiment, data, rounded))
    )
    return half_range.checked(experiment, rounded)


def _aligned(data: Dataset) -> Dataset:
    """Moves the inputs to where devices of a CPU can share them."""
    # Rows are copied anyway when they are read.
    if isinstance(data.train_inputs, Rows):
        return data
    return data.map_inputs(aligned)


def _description(data: Dataset) -> Description:
    """Completes the description of the source, or makes one from the feature names."""
    description = data.description
    if description is None:
        columns = tuple(map(Column, data.feature_names))
        description = Description(data.task, columns=columns)
    return description._replace(
        task=data.task,
        class_names=data.class_names,
        scaling=data.scaling,
        input_shape=data.train_inputs.shape[1:],
        num_outputs=data.signature.num_outputs,
    )


DATASETS = {
    "linear": linear,
    "gates": gates,
    "approximation": approximation,
    **PLAYGROUND,
    "iris": iris,
    "breast_cancer": breast_cancer,
    "wine": wine,
    "diabetes": diabetes,
    "digits": digits,
    "sine": sine,
    "blobs": blobs,
    "markov": markov,
    "text": text,
    "csv": csv,
    "npz": npz,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}
