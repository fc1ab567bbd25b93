"""Samples that come again in the order of before: a loader without set_epoch (D11)."""

import hashlib
from collections.abc import Sequence

from parity.own.recording import Ported

AGAIN = 2
"""Steps that must repeat earlier ones, one after the other, before it is said."""


def note(ported: Ported) -> str | None:
    """Returns what is to be said of the order of samples; None if nothing is."""
    batches = [_digest(ported, number) for number in range(len(ported))]
    length = period(batches)
    if length is None:
        return None
    if length == 1:
        return "every step has the samples of the first"
    last = len(batches) - 1
    return (
        f"steps {length} to {last} have the samples of steps 0 to {last - length}, in "
        "the same order: an epoch that repeats the one before (MISMATCHES D11)"
    )


def period(batches: Sequence[bytes]) -> int | None:
    """Returns after how many steps all batches come again; None if they do not."""
    for length in range(1, len(batches) - AGAIN + 1):
        pairs = zip(batches, batches[length:])
        # An epoch has no batch twice; what has, is no sample: a flag or a counter.
        has_twice = len(set(batches[:length])) < length
        if not has_twice and all(early == late for early, late in pairs):
            return length
    return None


def _digest(ported: Ported, number: int) -> bytes:
    found = hashlib.sha256()
    for one in ported.passes(number):
        for array in [*one.inputs.values(), *one.targets]:
            found.update(array.tobytes())
    return found.digest()
