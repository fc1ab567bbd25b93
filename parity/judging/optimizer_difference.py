"""What the recorded optimizer did, beside what another does on the same gradients.

Both are measured from tensors, so a difference has figures, whatever its cause is
called.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.judging.cause import cause, leaf_of
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.measured import compare, fit
from parity.measured.difference import Difference
from parity.measured.fit_types import Fit
from parity.measured.form import UNRECOGNISED
from parity.measured.history import Step
from parity.measured.predict import is_reproduced
from parity.quantities import UPDATE

NO_REFERENCES: Mapping[str, str] = {}
HOW = "measured from the recorded tensors"
OF_UPDATES = ("rate", "eps", "eps place", "decay", "bias-correction count")
"""Kinds of differences that leave the moments as they are."""
FITTED_BESIDE = (*OF_UPDATES, "gradient factor")
"""Kinds whose figures rest on the betas that were fitted."""
SHARED = 1e-4
"""Relative difference that the betas' rounding makes in what was fitted beside them."""


class Found(NamedTuple):
    """How two optimizers differ.

    Attributes:
      steps: of the recording.
      recorded: tensor -> measurement of the recording.
      own: tensor -> measurement of one's own optimizer.
      differences: those that bear on what failed.
    """

    steps: Sequence[Step]
    recorded: Mapping[str, Fit]
    own: Mapping[str, Fit]
    differences: Sequence[Difference]

    def is_known(self, tensor: str) -> bool:
        """Returns True if the recorded updates of a tensor follow what was measured."""
        is_measured = tensor in self.recorded
        return not is_measured or is_reproduced(self.recorded[tensor], self.steps)

    @property
    def figures(self) -> str:
        """What differs, with both sides' figures, of tensors that a formula fits."""
        seen = [d.sentence for d in self.differences if d.kind != UNRECOGNISED]
        return "; ".join(seen)


class Said(NamedTuple):
    """How a difference is told.

    Attributes:
      names: of the known differences that it is, or of its kind.
      text: sentence with figures.
    """

    names: Sequence[str]
    text: str


def by_kind(difference: Difference) -> Said:
    """Returns what can be said of a difference without knowing where it is from."""
    return Said([difference.kind.replace(" ", "_")], difference.sentence)


def find(
    recorded_steps: Sequence[Step],
    own_steps: Sequence[Step],
    failed: Sequence[Measurement],
) -> Found:
    """Returns how the recorded optimizer differs from one's own.

    Args:
      recorded_steps: consecutive updates of a recording.
      own_steps: what one's own optimizer makes of the same parameters and gradients.
      failed: measurements that failed.
    """
    if len(recorded_steps) < 2:
        return Found(recorded_steps, {}, {}, [])
    recorded, own = fit.measure(recorded_steps), fit.measure(own_steps)
    found = _of_what_failed(compare.differences(recorded, own), failed)
    return Found(recorded_steps, recorded, own, found)


def explain(
    found: Found,
    failed: Sequence[Measurement],
    say: Callable[[Difference], Said] = by_kind,
    references: Mapping[str, str] = NO_REFERENCES,
) -> list[Explanation]:
    """Returns one explanation of all differences; none if there are no differences.

    Args:
      found: differences of the two optimizers.
      failed: measurements that failed.
      say: difference -> how it is told.
      references: name -> where it is documented.
    """
    if not found.differences:
        return []
    wrong = {leaf_of(m) for m in failed if m.definition.part == UPDATE}
    told = {tensor for difference in found.differences for tensor in difference.tensors}
    is_cause = all(one.kind != UNRECOGNISED for one in found.differences)
    said = [say(difference) for difference in found.differences]
    names = list(dict.fromkeys(name for one in said for name in one.names))
    documented = dict.fromkeys(references.get(name, HOW) for name in names)
    return [
        cause(
            names=names,
            text="; ".join(one.text for one in said),
            reference="; ".join(documented),
            part=UPDATE,
            failed=failed,
            explains=is_cause and wrong <= told and all(map(found.is_known, wrong)),
        )
    ]


def _of_what_failed(
    found: Sequence[Difference], failed: Sequence[Measurement]
) -> list[Difference]:
    """Returns the differences that bear on what failed.

    Rates, eps and decay do not touch the moments. And betas or a count of the bias
    correction that are others make rates, eps and the gradients' factors look other in
    their fifth digit.
    """
    if not any(m.quantity == "updated" for m in failed):
        found = [d for d in found if d.kind not in OF_UPDATES]
    shared = [d for d in found if d.kind in FITTED_BESIDE and _is_tiny(d)]
    return [d for d in found if d not in shared or len(shared) == len(found)]


def _is_tiny(difference: Difference) -> bool:
    """Returns True if two figures, or a share of one's own, are nearly equal."""
    own = 1.0 if np.isnan(difference.own) else difference.own
    return bool(np.isclose(difference.recorded, own, rtol=SHARED, atol=0))
