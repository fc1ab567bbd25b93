"""What a sweep has found: a row for each member, settings in order, the best one."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxnn.experiment.flags import options
from jaxnn.sweep import axes, records
from jaxnn.sweep.halving import Setting, mean_scores
from jaxnn.sweep.members import Member
from jaxnn.sweep.records import Record


class Ranked(NamedTuple):
    """A setting with all members that repeat it, by seed or fold.

    Attributes:
      settings: flag -> value.
      members: who.
      score: mean of their scores; infinite if one diverged.
    """

    settings: dict[str, Any]
    members: list[Member]
    score: float


def rank(members: Sequence[Member], found: Mapping[int, Record]) -> list[Ranked]:
    """Returns the settings, best first; those that were dropped come last but one.

    Order: complete members, then dropped ones, the longest trained first, then diverged
    ones; by the mean loss among equals.
    """
    pooled: dict[Setting, list[Member]] = {}
    for member in members:
        pooled.setdefault(member.setting, []).append(member)
    ranked = [
        Ranked(dict(setting), pooled[setting], mean)
        for setting, mean in mean_scores(members, found).items()
    ]
    return sorted(ranked, key=lambda each: _place(each, found))


def _place(ranked: Ranked, found: Mapping[int, Record]) -> tuple[float, ...]:
    of = [found[member.number] for member in ranked.members]
    dropped = max(record.status == records.DROPPED for record in of)
    epochs = min(record.epochs for record in of)
    is_finite = math.isfinite(ranked.score)
    return (not is_finite, dropped, -epochs if dropped else 0, ranked.score)


def best_member(ranked: Sequence[Ranked], found: Mapping[int, Record]) -> Member | None:
    """Returns the best member of the best setting; None if all diverged."""
    if not ranked or not math.isfinite(ranked[0].score):
        return None
    return min(ranked[0].members, key=lambda member: found[member.number].score)


def to_csv(members: Sequence[Member], found: Mapping[int, Record]) -> str:
    """Returns sweep.csv: a row for each member, in their order.

    Columns: member, the axes, status, step of the divergence, epochs, kept_epoch with
    the losses and metrics of its network, best_epoch with those of the best epoch.
    """
    columns = list(
        dict.fromkeys(
            name for record in found.values() for row in record.rows for name in row
        )
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["member", *members[0].settings, "status", "diverged_at_step", "epochs"]
    of_best = [f"best_{name}" for name in columns]
    writer.writerow([*head, "kept_epoch", *columns, "best_epoch", *of_best])
    for member in members:
        writer.writerow(_row(member, found[member.number], columns))
    return text.getvalue()


def _row(member: Member, record: Record, columns: list[str]) -> list[Any]:
    values = [axes.spell_value(value) for value in member.settings.values()]
    step = record.step if record.status == records.DIVERGED else ""
    row = [member.number, *values, record.status, step, record.epochs]
    kept = record.kept if record.status != records.DIVERGED else 0
    for epoch in (kept, record.best):
        at = record.rows[epoch - 1] if epoch else {}
        row += [epoch or "", *(at.get(name, "") for name in columns)]
    return row


def to_flagfile(member: Member, record: Record) -> str:
    """Returns best.flags, from which `jaxnn.train` trains a member again."""
    return (
        f"# The best of a sweep: {axes.spell(member.settings) or 'the only one'}.\n"
        f"# Its {record.judged_by.replace('_', ' ')}: {record.sign * record.score!r}\n"
        f"#   python -m jaxnn.train --flagfile=best.flags\n"
        + options.to_flagfile(member.experiment)
    )
