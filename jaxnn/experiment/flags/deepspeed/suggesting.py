"""Which known key an unknown one was meant to be."""

import difflib
from collections.abc import Sequence


def nearest(key: str, known: Sequence[str]) -> str:
    """Returns the known key that is most like a key, or "" if none is."""
    close = difflib.get_close_matches(key, known, 1, 0.75)
    if close and _is_like(key, close[0]):
        return close[0]
    # The right name in the wrong block: compare last parts alone. Of equal ones the
    # first key wins, hence the reversed order.
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    name = key.rpartition(".")[2]
    close = difflib.get_close_matches(name, last, 1, 0.75)
    return last[close[0]] if close else ""


def suggestion(key: str, known: Sequence[str]) -> str:
    """Returns "; did you mean ...?" with a similar key, or "" if there is none."""
    name = nearest(key, known)
    return f"; did you mean {name}?" if name else ""


def _is_like(key: str, other: str) -> bool:
    """Returns True if the last parts are alike, too; those of one block share more."""
    one, two = (name.rpartition(".")[2] for name in (key, other))
    return difflib.SequenceMatcher(None, one, two).ratio() >= 0.75
