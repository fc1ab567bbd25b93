"""Downloads image data sets from openml.org, through scikit-learn."""

import http.client
import warnings
from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.data.cache import cache_folder
from jaxnn.experiment.errors import MissingData, UserError

# Data set -> its name at openml.org.
NAMES = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR_10"}

# The last samples of each data set are its official test split.
NUM_TEST = 10_000

# Data set -> (height, width, channels).
SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def download(dataset: str, files: Sequence[str]) -> list[np.ndarray]:
    """Returns [images, labels, test images, test labels], all uint8.

    Args:
      dataset: a key of `NAMES`.
      files: official file names, for messages.

    Raises:
      MissingData: the data set cannot be downloaded.
      UserError: it is not what it should be.
    """
    from sklearn.datasets import fetch_openml

    try:
        # scikit-learn warns at each new attempt.
        with warnings.catch_warnings(action="ignore"):
            data, target = fetch_openml(
                NAMES[dataset],
                version=1,
                data_home=str(cache_folder() / "openml"),
                as_frame=False,
                return_X_y=True,
                # The other parser needs pandas.
                parser="liac-arff",
                n_retries=1,
            )
    except (OSError, ValueError, EOFError, http.client.HTTPException) as error:
        raise MissingData(
            f"--data_path: cannot download --dataset={dataset} "
            f"({' '.join(str(error).split())[:80]}); give the folder with the official "
            f"files {', '.join(files)}"
        ) from None
    return _split(
        dataset, np.asarray(data, np.float64), np.asarray(target).astype(np.float64)
    )


def _split(dataset: str, data: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Checks what was downloaded and splits off the test images."""
    height, width, channels = SHAPES[dataset]
    refused = f"--data_path: openml.org's {NAMES[dataset]}"
    is_shaped = data.shape[1:] == (height * width * channels,)
    if not is_shaped or len(data) <= NUM_TEST or len(data) != len(target):
        raise UserError(
            f"{refused} has the shape {list(data.shape)}; give the folder with the "
            "official files"
        )
    if not (_are_whole(data, 255) and _are_whole(target, 9)):
        raise UserError(
            f"{refused} holds what is no pixel or no label; give the folder with the "
            "official files"
        )

    # Plane by plane, as in CIFAR's official files.
    planes = data.astype(np.uint8).reshape(-1, channels, height, width)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    labels = target.astype(np.uint8)
    return [
        images[:-NUM_TEST],
        labels[:-NUM_TEST],
        images[-NUM_TEST:],
        labels[-NUM_TEST:],
    ]


def _are_whole(values: np.ndarray, most: int) -> bool:
    """Returns True if all values are whole numbers from 0 to `most`."""
    return bool(((values >= 0) & (values <= most) & (values == np.round(values))).all())
