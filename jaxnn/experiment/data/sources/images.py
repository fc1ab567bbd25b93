"""MNIST, Fashion-MNIST and CIFAR-10, from their official files or downloaded.

Pixels stay bytes: images are [n, height, width, channels] uint8.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from jaxnn.experiment.catalogue import MULTICLASS
from jaxnn.experiment.data import splits
from jaxnn.experiment.data.cache import cached
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.sources import byte_files, openml
from jaxnn.experiment.errors import MissingData, UserError
from jaxnn.experiment.flags.config import Experiment

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_FILES = (
    *(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
)
# The folder in the official archive, cifar-10-binary.tar.gz.
CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_PYTHON_FOLDER = "cifar-10-batches-py"

DIGIT_NAMES = tuple("0123456789")
FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def mnist(experiment: Experiment) -> Dataset:
    """MNIST: 60,000 training and 10,000 test images of digits, 28x28.

    Source: LeCun, Cortes and Burges.
    """
    return _dataset(experiment, DIGIT_NAMES, _read_mnist, MNIST_FILES)


def fashion_mnist(experiment: Experiment) -> Dataset:
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28x28.

    Source: Xiao, Rasul and Vollgraf, 2017.
    """
    return _dataset(experiment, FASHION_NAMES, _read_mnist, MNIST_FILES)


def cifar10(experiment: Experiment) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images in colour, 32x32.

    Source: Krizhevsky, 2009.
    """
    return _dataset(experiment, CIFAR_NAMES, _read_cifar, CIFAR_FILES)


def _dataset(
    experiment: Experiment,
    names: tuple[str, ...],
    read: Callable[[pathlib.Path], Sequence[np.ndarray]],
    files: Sequence[str],
) -> Dataset:
    """Returns a data set with its official test split.

    Args:
      experiment: its data flags.
      names: names of the classes.
      read: folder -> [images, labels, test images, test labels].
      files: official file names, for messages.
    """
    # Before the data are read, which takes a while.
    splits.refuse_folds(experiment, "brings a test split of its own")
    if experiment.data_path:
        arrays = read(pathlib.Path(experiment.data_path))
    else:
        # The key is a version: raise it when `download` returns other arrays.
        arrays = cached(
            experiment.dataset, "1", lambda: openml.download(experiment.dataset, files)
        )
    images, labels, test_images, test_labels = arrays
    labels = labels.astype(np.int32)
    test_labels = test_labels.astype(np.int32)
    split = splits.held_out(experiment, len(images), labels)
    return Dataset.of_splits(
        split,
        images,
        labels,
        MULTICLASS,
        test=(test_images, test_labels),
        class_names=names,
    )


def _read_mnist(folder: pathlib.Path) -> list[np.ndarray]:
    paths = [_find(folder, name) for name in MNIST_FILES]
    arrays = [
        byte_files.read_idx(path, 1 if "labels" in path.name else 3) for path in paths
    ]
    # In the order of MNIST_FILES: images and labels for training, then for testing.
    for place in (0, 2):
        _check(paths[place], paths[place + 1], *arrays[place : place + 2])
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise UserError(
            f"--data_path: {paths[2]}: images of {arrays[2].shape[1:]} pixels, those "
            f"to train on have {arrays[0].shape[1:]}"
        )
    return [array[..., None] if array.ndim == 3 else array for array in arrays]


def _read_cifar(folder: pathlib.Path) -> list[np.ndarray]:
    folder = folder / CIFAR_FOLDER if (folder / CIFAR_FOLDER).is_dir() else folder
    paths = [_find(folder, name) for name in CIFAR_FILES]
    batches = [byte_files.read_cifar(path) for path in paths]
    for path, batch in zip(paths, batches):
        _check(path, path, *batch)
    # The last batch is the test split.
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:-1]))
    return [images, labels, *batches[-1]]


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a file, which may be packed or renamed by an archiver."""
    # 7-Zip and Kaggle write train-images.idx3-ubyte, Kaggle also a folder of that name
    # around the file.
    names = [name, name.replace("-idx", ".idx")]
    for path in (folder / f"{each}{end}" for each in names for end in ("", ".gz")):
        for candidate in (path, path / path.name):
            if candidate.is_file():
                return candidate
    _refuse_python_version(folder, name)
    raise MissingData(
        f"--data_path: {folder} has no file {name} (or {name}.gz); give the folder "
        "with the official files"
    )


def _refuse_python_version(folder: pathlib.Path, name: str) -> None:
    """Raises UserError if a folder holds CIFAR-10 pickled for Python."""
    pickled = name.removesuffix(".bin")
    for place in (folder, folder / CIFAR_PYTHON_FOLDER):
        if name in CIFAR_FILES and (place / pickled).is_file():
            raise UserError(
                f"--data_path: {place / pickled}: is CIFAR-10's Python version, and "
                f"the binary version is needed: unpack cifar-10-binary.tar.gz and give "
                f"its folder {CIFAR_FOLDER}"
            )


def _check(
    images_path: pathlib.Path,
    labels_path: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Raises UserError if images and labels do not belong together."""
    if not images.size:
        raise UserError(f"--data_path: {images_path}: holds no images")
    if len(images) != len(labels):
        raise UserError(
            f"--data_path: {labels_path}: has {len(labels)} labels for the "
            f"{len(images)} images of {images_path.name}"
        )
    if labels.max() > 9:
        raise UserError(
            f"--data_path: {labels_path}: item {np.argmax(labels > 9)} has the label "
            f"{labels[labels > 9][0]}; there are the classes 0 to 9"
        )
