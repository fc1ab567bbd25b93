"""The binary formats of MNIST (IDX) and CIFAR-10 (batches of records)."""

import pathlib
import struct

import numpy as np

from jaxnn.experiment.data.read_file import read_bytes
from jaxnn.experiment.errors import UserError

UNSIGNED_BYTE = 0x08
"""The only type of an IDX file that MNIST uses."""
CIFAR_SIDE, CIFAR_CHANNELS = 32, 3
CIFAR_RECORD = 1 + CIFAR_CHANNELS * CIFAR_SIDE**2
"""A label, then the red, the green and the blue plane, row by row."""


def read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file: two zero bytes, type, number of dimensions, each
    dimension, the values.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    Numbers are big-endian.

    Args:
      path: plain, or gzip if it ends in .gz.
      dimensions: that it must have.

    Raises:
      UserError: the file cannot be read, is of another kind, or is not as long as it
        says.
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
    shape = (
        struct.unpack(f">{dimensions}I", content[4:start])
        if len(content) >= start
        else ()
    )
    due = start + int(np.prod(shape, dtype=object))
    if len(content) != due:
        raise UserError(
            f"--data_path: {path}: has {len(content)} bytes, its header promises "
            f"{due}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """(images [n, 32, 32, 3] uint8, labels [n] uint8) of a CIFAR-10 batch in the binary
    version.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Raises:
      UserError: the file cannot be read or is no whole number of records.
    """
    content = read_bytes(path)
    if not content or len(content) % CIFAR_RECORD:
        raise UserError(
            f"--data_path: {path}: has {len(content)} bytes, not a multiple of "
            f"{CIFAR_RECORD}, a label and an image; fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_RECORD)
    planes = records[:, 1:].reshape(-1, CIFAR_CHANNELS, CIFAR_SIDE, CIFAR_SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].copy()
