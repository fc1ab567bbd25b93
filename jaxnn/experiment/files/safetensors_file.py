"""Writes a safetensors file: many small arrays in half the time of the package's own
writer, which a recording of every step spends next to training."""

import json
import pathlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np

KINDS = {
    np.dtype(kind): name
    for kind, name in (
        (np.float64, "F64"),
        (np.float32, "F32"),
        (np.float16, "F16"),
        (ml_dtypes.bfloat16, "BF16"),
        (np.int64, "I64"),
        (np.int32, "I32"),
        (np.int16, "I16"),
        (np.int8, "I8"),
        (np.uint64, "U64"),
        (np.uint32, "U32"),
        (np.uint16, "U16"),
        (np.uint8, "U8"),
        (np.bool_, "BOOL"),
    )
}
"""dtype -> its name in the format."""


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name.

    Raises:
      TypeError: the format has no such dtype.
    """
    plain = {name: _plain(name, array) for name, array in arrays.items()}
    # Wide numbers first: so each begins at a multiple of its size.
    names = sorted(plain, key=lambda name: (-plain[name].itemsize, name))
    text = _header(plain, names)
    with path.open("wb", buffering=2**20) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            file.write(plain[name].reshape(-1).view(np.uint8).data)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Returns an array in C order and little-endian."""
    plain = np.asarray(array, order="C")
    if plain.dtype not in KINDS:
        plain = plain.astype(plain.dtype.newbyteorder("<"))
    if plain.dtype not in KINDS:
        raise TypeError(f"{name}: safetensors has no {plain.dtype}")
    return plain


def _header(arrays: Mapping[str, np.ndarray], names: list[str]) -> bytes:
    """Returns where each array lies, as JSON of a length that 8 divides."""
    entries = {}
    end = 0
    for name in names:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        kind = KINDS[array.dtype]
        entries[name] = {
            "dtype": kind,
            "shape": array.shape,
            "data_offsets": (begin, end),
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
