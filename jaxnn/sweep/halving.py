"""Successive halving: all settings train a little, the best go on.

Jamieson & Talwalkar 2016; a bracket of Hyperband (Li et al. 2018).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnn.experiment.errors import UserError
from jaxnn.sweep.members import Member
from jaxnn.sweep.records import Record

Setting = tuple
"""As of `Member.setting`."""


class Rung(NamedTuple):
    """Epochs that the settings left train, and how many of these go on.

    Attributes:
      end: epochs that a member has completed after it.
      keep: settings that go on; 0 after the last rung.
    """

    end: int
    keep: int


def rungs(epochs: int, settings: int, factor: int) -> list[Rung]:
    """Returns the rungs of a sweep; the last one ends with all epochs.

    Each keeps one in `factor` settings, which train `factor` times as long. As many
    rungs as leave one setting, unless the epochs do not suffice for them.

    Args:
      epochs: of a member that gets to the end.
      settings: number of settings.
      factor: 2 at least, or 0 for a single rung.
    """
    found = []
    while factor and settings > 1:
        found.append(settings := -(-settings // factor))
    ends = [-(-epochs // factor**n) for n in range(len(found), 0, -1)]
    # Of rungs that would end with the same epoch the last one counts.
    last = dict(zip(ends, found))
    return [Rung(end, keep) for end, keep in last.items() if end < epochs] + [
        Rung(epochs, 0)
    ]


def check(factor: int, members: Sequence[Member]) -> None:
    """Raises UserError if there is nothing to halve by a factor."""
    if not factor:
        return
    if factor < 2:
        raise UserError(
            f"--halving: keeps one in N settings, N at least 2, got {factor}"
        )
    for flag in ("epochs", "max_steps"):
        if flag in members[0].settings:
            raise UserError(
                f"--halving: decides how long members train; take {flag} out of --grid"
            )
    if len({member.setting for member in members}) < 2:
        raise UserError("--halving: --grid has a single setting; leave it out")


def mean_scores(
    members: Sequence[Member], records: Mapping[int, Record]
) -> dict[Setting, float]:
    """Returns each setting's mean score over its seeds and folds, the best first."""
    scores: dict[Setting, list[float]] = {}
    for member in members:
        scores.setdefault(member.setting, []).append(records[member.number].score)
    means = {setting: sum(of) / len(of) for setting, of in scores.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def survivors(
    members: Sequence[Member], records: Mapping[int, Record], keep: int
) -> list[Member]:
    """Returns the members of the `keep` best settings that have not all diverged."""
    means = mean_scores(members, records)
    best = {setting for setting in list(means)[:keep] if math.isfinite(means[setting])}
    return [member for member in members if member.setting in best]
