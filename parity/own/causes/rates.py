"""Recorded learning rates beside a schedule of one's own: late, early, miscounted.

The schedule is inside the user's optimizer. What it gives at later counts is measured
as its rates are: the optimizer is fed on, and its updates show them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from parity.measured.fit_types import Fit
from parity.measured.numbers import Measured, agree

FEWEST = 3
"""Steps that must follow a schedule before it is told by name."""


class Count(NamedTuple):
    """A way to count the updates that a schedule is asked for.

    Attributes:
      name: of the cause.
      text: the difference in words.
      of: (updates before a step, steps before it) -> count.
    """

    name: str
    text: str
    of: Callable[[int, int], int]


def counts(ranks: int, parts: int) -> Iterator[Count]:
    """Yields the ways to count that are tried."""
    yield Count(
        "learning_rate_early",
        "yours is one step behind: the recorded schedule is advanced before the "
        "update it belongs to",
        lambda updates, steps: updates + 1,
    )
    yield Count(
        "learning_rate_late",
        "yours is one step ahead: the recorded schedule uses its first rate twice",
        lambda updates, steps: max(updates - 1, 0),
    )
    yield Count(
        "schedule_counts_skipped",
        "skipped steps advance the recorded schedule",
        lambda updates, steps: steps,
    )
    if ranks > 1:
        yield Count(
            "schedule_by_ranks",
            f"each of {ranks} ranks advances the recorded schedule",
            lambda updates, steps: ranks * updates,
        )
    if parts > 1:
        yield Count(
            "schedule_by_parts",
            f"each of {parts} microbatches advances the recorded schedule",
            lambda updates, steps: parts * updates,
        )


def longest(updates: int, steps: int, ways: Sequence[Count]) -> int:
    """Returns how many rates of a schedule all ways to count ask for."""
    return 1 + max([updates, *(way.of(updates, steps) for way in ways)])


def explained(
    recorded: Fit,
    steps: Sequence[int],
    schedule: Sequence[Measured],
    ways: Sequence[Count],
) -> tuple[str, str] | None:
    """Returns name and sentence of the one way to count that explains all rates.

    Args:
      recorded: fit whose rates are not those of the schedule.
      steps: steps before each of its updates, skipped ones counted.
      schedule: one's own rates, by the count of updates.
      ways: what to try.
    """
    rates = recorded.rates
    if len(rates) < FEWEST or not all(rate.is_seen for rate in rates):
        return None
    if _are_one(schedule):
        return None
    start = _first_difference(rates, schedule)
    if start is None:
        return None
    where = (
        f"rates: step {steps[start]} used {rates[start].value:.4g}, your schedule "
        f"gives {schedule[start].value:.4g}; "
    )
    if _are_one(rates):
        return "schedule_missing", where + "the recorded rate never changes"
    found = [way for way in ways if _follows(rates, steps, schedule, way)]
    return (found[0].name, where + found[0].text) if len(found) == 1 else None


def _follows(
    rates: Sequence[Measured],
    steps: Sequence[int],
    schedule: Sequence[Measured],
    way: Count,
) -> bool:
    places = [way.of(updates, step) for updates, step in enumerate(steps)]
    return all(
        schedule[place].is_seen and agree(rate, schedule[place])
        for rate, place in zip(rates, places)
    )


def _are_one(rates: Sequence[Measured]) -> bool:
    return all(agree(rate, rates[0]) for rate in rates)


def _first_difference(
    rates: Sequence[Measured], schedule: Sequence[Measured]
) -> int | None:
    pairs = enumerate(zip(rates, schedule))
    return next((n for n, (a, b) in pairs if not agree(a, b)), None)
