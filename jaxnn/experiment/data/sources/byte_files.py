"""Binary formats of MNIST (IDX) and CIFAR-10 (batches of records)."""

import pathlib
import struct

import numpy as np

from jaxnn.experiment.data.read_file import read_bytes
from jaxnn.experiment.errors import UserError

# The one data type of IDX that MNIST uses.
UNSIGNED_BYTE = 0x08

CIFAR_SIDE = 32
CIFAR_CHANNELS = 3

# A label, then the red, the green and the blue plane, row by row.
CIFAR_RECORD = 1 + CIFAR_CHANNELS * CIFAR_SIDE**2


def read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Reads the uint8 array of an IDX file.

    The file holds two zero bytes, the data type, the number of dimensions, the size of
    each dimension as big-endian uint32, and the values in C order. Source: LeCun,
    Cortes and Burges, "The MNIST database of handwritten digits".

    Args:
      path: path of the file, gzip-compressed if it ends in .gz.
      dimensions: number of dimensions that the array must have.

    Raises:
      UserError: the file cannot be read, is of another kind, or has another length than
        its header says.
    """
    content = read_bytes(path)
    magic = struct.pack(">BBBB", 0, 0, UNSIGNED_BYTE, dimensions)
    if content[:4] != magic:
        raise UserError(
            f"--data_path: {path}: starts with 0x{content[:4].hex()}, not as an IDX "
            f"file of {dimensions} dimensions with 0x{magic.hex()}; give the official "
            "file"
        )

    start = 4 + 4 * dimensions
    shape = ()
    if len(content) >= start:
        shape = struct.unpack(f">{dimensions}I", content[4:start])
    # dtype=object multiplies Python integers: the sizes of a damaged header overflow.
    due = start + int(np.prod(shape, dtype=object))
    if len(content) != due:
        raise UserError(
            f"--data_path: {path}: has {len(content)} bytes, its header promises "
            f"{due}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a batch of CIFAR-10 in its binary version.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Returns:
      images: [n, 32, 32, 3] uint8.
      labels: [n] uint8.

    Raises:
      UserError: the file cannot be read or does not consist of whole records.
    """
    content = read_bytes(path)
    if not content or len(content) % CIFAR_RECORD:
        raise UserError(
            f"--data_path: {path}: has {len(content)} bytes, not a multiple of "
            f"{CIFAR_RECORD}, a label and an image; fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_RECORD)
    planes = records[:, 1:].reshape(-1, CIFAR_CHANNELS, CIFAR_SIDE, CIFAR_SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    # A copy, because a view would keep the whole content alive.
    return images, records[:, 0].copy()
