"""Explanations that no switch on a replay stands behind: they were measured."""

from collections.abc import Sequence

from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.semantics.switch import Switch


def cause(
    names: Sequence[str],
    text: str,
    reference: str,
    part: str,
    failed: Sequence[Measurement],
    explains: bool,
) -> Explanation:
    """Returns an explanation.

    Args:
      names: short names of what was found.
      text: what the recording stack did, with figures.
      reference: where it is documented, or how it was found.
      part: part of the step that it is about.
      failed: measurements that it is about.
      explains: nothing is left to explain.
    """
    described = Switch(
        " + ".join(names), (part,), text, reference, applies=lambda experiment: True
    )
    return Explanation(
        switches=(described,),
        before=max((m.z for m in failed), default=0.0),
        after=0.0,
        explains=explains,
        cost=0.0,
        is_measured=True,
    )


def joined(found: Sequence[Explanation], is_whole: bool) -> Explanation:
    """Returns several explanations as one.

    Args:
      found: at least one; each is true of its part.
      is_whole: they leave nothing to explain.
    """
    first, *others = found
    switches = first.switches + tuple(s for other in others for s in other.switches)
    return first._replace(
        switches=switches,
        before=max(one.before for one in found),
        explains=is_whole and all(one.explains for one in found),
    )


def leaf_of(m: Measurement) -> str:
    """Returns the leaf that a measured moment or parameter belongs to."""
    return m.tensor.removeprefix("first/").removeprefix("second/")
