"""What a .npy file promises to hold, against what it holds and what memory is free."""

import contextlib
import math
from collections.abc import Callable
from typing import IO

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.memory import free_memory

# Arrays that exist at once: as read, in its final dtype, and cut into splits.
COPIES = 3

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# Turns NumPy's errors about a file into UserError.
Whole = Callable[[], contextlib.AbstractContextManager[None]]


def header(file: IO[bytes], whole: Whole) -> tuple[tuple, bool, np.dtype] | None:
    """Reads shape, order and dtype of a .npy file; None: its version is another one.

    Args:
      file: the file at its beginning; it is left at the array.
      whole: turns errors about the file into UserError.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with whole():
        version = np.lib.format.read_magic(file)
    if version not in readers:
        return None
    with whole():
        return readers[version](file)


def check(file: IO[bytes], num_bytes: int, where: str, whole: Whole) -> int:
    """Returns the bytes of an array.

    Args:
      file: .npy file at its beginning.
      num_bytes: length of the file.
      where: begins the message.
      whole: as in `header`.

    Raises:
      UserError: the header promises more than the file holds.
    """
    found = header(file, whole)
    # The dtype of pickled objects tells nothing; reading them is refused.
    if found is None or found[2].hasobject:
        return num_bytes
    shape, _, dtype = found
    promised = math.prod(shape) * dtype.itemsize
    held = num_bytes - file.tell()
    if promised > held:
        raise UserError(
            f"{where}: the header promises {in_words(promised)}, {list(shape)} of "
            f"{dtype}, and the file holds {in_words(held)}; write it again"
        )
    return promised


def refuse_unless_free(num_bytes: int, where: str) -> None:
    """Raises UserError if an array to unpack does not fit into memory."""
    free = free_memory()
    if free is not None and COPIES * num_bytes > free:
        raise UserError(
            f"{where}: takes {in_words(num_bytes)} once unpacked, reading and "
            f"splitting it {COPIES} times as much, and {in_words(free)} of memory are "
            "free; write it with numpy.savez, which does not compress: then it is "
            "memory-mapped"
        )


def in_words(num_bytes: int) -> str:
    """Returns a number of bytes with three digits and a unit."""
    power = min(max(num_bytes.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{num_bytes / 1024**power:.3g} {UNITS[power]}"
