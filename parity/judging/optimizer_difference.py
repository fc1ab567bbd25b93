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
from parity.quantities import UPDATE

HOW = "measured from the recorded tensors"
OF_UPDATES = ("rate", "eps", "eps place", "decay", "bias-correction count")
"""Kinds of differences that leave the moments as they are."""
SHARED = 1e-4
"""Relative difference that float32 betas make in what was fitted beside them."""


class Found(NamedTuple):
    """How two optimizers differ.

    Attributes:
      recorded: tensor -> measurement of the recording.
      differences: those that bear on what failed.
    """

    recorded: Mapping[str, Fit]
    differences: Sequence[Difference]

    @property
    def text(self) -> str:
        """All differences in one line, with both sides' figures."""
        return "; ".join(difference.sentence for difference in self.differences)

    @property
    def figures(self) -> str:
        """The same without the tensors that no formula fits."""
        seen = [d.sentence for d in self.differences if d.kind != UNRECOGNISED]
        return "; ".join(seen)


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
        return Found({}, [])
    recorded, own = fit.measure(recorded_steps), fit.measure(own_steps)
    found = _of_what_failed(compare.differences(recorded, own), failed)
    return Found(recorded, found)


def explain(
    found: Found,
    failed: Sequence[Measurement],
    name: Callable[[Difference], str],
    references: Mapping[str, str],
) -> list[Explanation]:
    """Returns one explanation of all differences; none if there are no differences.

    Args:
      found: differences of the two optimizers.
      failed: measurements that failed.
      name: difference -> its name.
      references: name -> where it is documented.
    """
    if not found.differences:
        return []
    wrong = {leaf_of(m) for m in failed if m.definition.part == UPDATE}
    told = {tensor for difference in found.differences for tensor in difference.tensors}
    fits = (found.recorded[leaf] for leaf in wrong if leaf in found.recorded)
    is_known = all(fit.is_recognised for fit in fits)
    is_cause = all(
        difference.kind != "unrecognised" for difference in found.differences
    )
    names = list(dict.fromkeys(map(name, found.differences)))
    documented = dict.fromkeys(references.get(one, HOW) for one in names)
    return [
        cause(
            names=names,
            text=found.text,
            reference="; ".join(documented),
            part=UPDATE,
            failed=failed,
            explains=is_known and is_cause and wrong <= told,
        )
    ]


def _of_what_failed(
    found: Sequence[Difference], failed: Sequence[Measurement]
) -> list[Difference]:
    """Returns the differences that bear on what failed.

    Rates, eps and decay do not touch the moments. And betas or a count of the bias
    correction that are others make rates and eps look other in their fifth digit.
    """
    if not any(m.quantity == "updated" for m in failed):
        return [d for d in found if d.kind not in OF_UPDATES]
    shared = [d for d in found if d.kind in OF_UPDATES and _is_tiny(d)]
    return [d for d in found if d not in shared or len(shared) == len(found)]


def _is_tiny(difference: Difference) -> bool:
    """Returns True if two figures, or a share of one's own, are nearly equal."""
    own = 1.0 if np.isnan(difference.own) else difference.own
    return bool(np.isclose(difference.recorded, own, rtol=SHARED, atol=0))
