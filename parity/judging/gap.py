"""How two values that should be equal to the bit differ, in words."""

import numpy as np


def gap(recorded: np.ndarray, expected: np.ndarray) -> str:
    """Returns by how much a recorded value differs from the expected one.

    Args:
      recorded: as the stack wrote it.
      expected: what it should have been; another value, shape or dtype.
    """
    if recorded.shape != expected.shape:
        return f"of shape {recorded.shape}, {expected.shape} expected"
    if recorded.dtype != expected.dtype:
        return f"{recorded.dtype}, {expected.dtype} expected"
    if not recorded.shape:
        # Scalars, unlike arrays of one, print with the digits that they have.
        return f"{recorded[()]!s}, {expected[()]!s} expected"
    return _of_entries(recorded.ravel(), expected.ravel())


def _of_entries(recorded: np.ndarray, expected: np.ndarray) -> str:
    broken = np.count_nonzero(~np.isfinite(recorded))
    if broken:
        return f"{broken} of {recorded.size} entries are not finite"
    differing = np.flatnonzero(recorded != expected)
    if not differing.size:
        return "zeros of the other sign"
    first = differing[0]
    text = f"{differing.size} of {recorded.size} entries differ"
    if recorded.dtype.kind in "iub":
        pair = f"{recorded[first]}, {expected[first]} expected"
        return f"{text}, the first is {pair}"
    wide, exact = recorded.astype(np.float64), expected.astype(np.float64)
    share = np.linalg.norm(wide - exact) / (np.linalg.norm(exact) or 1.0)
    return f"{text}, by {share:.1e} of the whole"
