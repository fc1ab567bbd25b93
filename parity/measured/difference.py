"""One difference between two measurements, and the sentence that says it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SHOWN = 3
"""Tensors that a sentence names; the others are counted."""


class Finding(NamedTuple):
    """A difference of one tensor.

    Attributes:
      kind: what differs, as "eps" or "rate".
      text: sentence without the tensors; the same on tensors that are alike.
      recorded: the recording's figure.
      own: the other's figure.
    """

    kind: str
    text: str
    recorded: float = float("nan")
    own: float = float("nan")


class Difference(NamedTuple):
    """A difference of some tensors.

    Attributes:
      kind: what differs.
      sentence: one line of English with both figures and the tensors.
      tensors: their names.
      recorded: the recording's figure on the first of them; nan if it is no number.
      own: the other's figure.
    """

    kind: str
    sentence: str
    tensors: tuple[str, ...]
    recorded: float
    own: float


def gathered(findings: Sequence[tuple[str, Finding]], total: int) -> list[Difference]:
    """Returns one difference for all tensors that it is told of in the same words.

    Args:
      findings: (tensor, finding).
      total: number of tensors that were compared.
    """
    groups: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for name, finding in findings:
        groups.setdefault((finding.kind, finding.text), []).append((name, finding))

    differences = []
    for (kind, text), members in groups.items():
        names = tuple(name for name, _ in members)
        first = members[0][1]
        sentence = f"{text} ({_tensors(names, total)})"
        differences.append(
            Difference(kind, sentence, names, first.recorded, first.own)
        )
    return differences


def factor_text(factor: float) -> str:
    """Returns a factor, with its power of 2 if it is one."""
    if factor <= 0:
        return f"{factor:.4g}"
    exponent = round(float(np.log2(factor)))
    if exponent == 0 or abs(factor / 2.0**exponent - 1) > 1e-3:
        return f"{factor:.4g}"
    if exponent > 0:
        return f"{factor:.4g} (2^{exponent})"
    return f"{factor:.4g} (1/{2**-exponent}, 2^{exponent})"


def steps_text(counts: Sequence[int]) -> str:
    """Returns steps by their counts: "step 3", "steps 3 to 5" or "steps 1, 4"."""
    if len(counts) == 1:
        return f"step {counts[0]}"
    if list(counts) == list(range(counts[0], counts[0] + len(counts))):
        return f"steps {counts[0]} to {counts[-1]}"
    return "steps " + ", ".join(str(count) for count in counts)


def _tensors(names: tuple[str, ...], total: int) -> str:
    if len(names) == total:
        return "all tensors"
    shown = ", ".join(names[:SHOWN])
    more = len(names) - SHOWN
    counted = f"{len(names)} tensor{'s' if len(names) > 1 else ''}"
    return f"{counted}: {shown}" + (f" and {more} more" if more > 0 else "")
