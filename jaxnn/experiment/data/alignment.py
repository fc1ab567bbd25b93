"""Arrays at addresses that JAX's CPU devices take over as they are.

Any other array is copied for each device: two would hold the 188 MiB of W3's inputs
(launch/benchmark) twice, beside the host's.
"""

import numpy as np

BYTES = 64
"""An aligned array begins at a multiple."""


def aligned(array: np.ndarray) -> np.ndarray:
    """Returns the array if it is contiguous and aligned, else a copy that is."""
    array = np.asarray(array, order="C")
    if array.ctypes.data % BYTES == 0:
        return array
    room = np.empty(array.nbytes + BYTES, np.uint8)
    # Not by slices and reshape, which move an empty array elsewhere.
    copy = np.ndarray(array.shape, array.dtype, room, -room.ctypes.data % BYTES)
    np.copyto(copy, array)
    return copy
