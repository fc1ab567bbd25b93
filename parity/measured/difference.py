"""One difference between two measurements, and the sentence that says it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.measured.numbers import UNSEEN, Measured, agree

SHOWN = 3
"""Tensors that a sentence names; the others are counted."""

OF_NORMS = "clip"
"""What the kinds of findings begin with whose figure is a norm, which may be 1; other
figures beside none are factors."""


class Finding(NamedTuple):
    """A difference of one tensor.

    Attributes:
      kind: what differs, as "eps" or "rate".
      text: sentence without the tensors, with {a} and {b} for the figures.
      recorded: the recording's figure.
      own: the other's figure.
    """

    kind: str
    text: str
    recorded: Measured = UNSEEN
    own: Measured = UNSEEN

    def is_like(self, other: "Finding") -> bool:
        """Returns True if one sentence can say both."""
        same = self.kind == other.kind and self.text == other.text
        alike = agree(self.recorded, other.recorded) and agree(self.own, other.own)
        return same and alike

    def sentence(self) -> str:
        """Returns the text with its figures."""
        a, b = figures(self.recorded, self.own)
        if not self.own.is_bounded and self.recorded.is_seen:
            text = power_text if self.kind.startswith(OF_NORMS) else factor_text
            a = text(self.recorded.value)
        return self.text.format(a=a, b=b)


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
    groups: list[list[tuple[str, Finding]]] = []
    for name, finding in findings:
        like = [group for group in groups if finding.is_like(group[0][1])]
        if like:
            like[0].append((name, finding))
        else:
            groups.append([(name, finding)])
    return [_difference(group, total) for group in groups]


def _difference(members: list[tuple[str, Finding]], total: int) -> Difference:
    names = tuple(name for name, _ in members)
    found = [finding for _, finding in members]
    # The sharpest figures of all tensors alike.
    recorded = min((one.recorded for one in found), key=lambda number: number.error)
    own = min((one.own for one in found), key=lambda number: number.error)
    sharpest = found[0]._replace(recorded=recorded, own=own)
    sentence = f"{sharpest.sentence()} ({_tensors(names, total)})"
    return Difference(found[0].kind, sentence, names, recorded.value, own.value)


def figures(a: Measured, b: Measured) -> tuple[str, str]:
    """Returns both numbers, with the digits that tell them apart."""
    texts = a.text(), b.text()
    if texts[0] == texts[1] and a.is_seen:
        return f"{a.value:.8g}", f"{b.value:.8g}"
    return texts


def factor_text(factor: float) -> str:
    """Returns a factor that is not 1, as `power_text` but with digits that say so."""
    text = power_text(factor)
    return text if text != "1" else f"{factor:.8g}"


def power_text(factor: float) -> str:
    """Returns a number, with its power of 2 if it is one."""
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
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}: {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
