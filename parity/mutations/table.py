"""Prints the score as lines, tables and a sentence, and renders it as JSON."""

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from parity.judging.measure import UNEQUAL, Measurement, z_as_json
from parity.mutations.bench import CLEAN
from parity.mutations.score import FaultOutcome

# Shares of the detectable faults that must be located and explained. Not 1: two faults
# may be the same computation in an experiment, as `unscaled_twice` is `loss_not_scaled`
# to the bit where nothing underflows.
LOCATED = 0.95
EXPLAINED = 0.90

WORDS = ("caught", "located", "explained")
"""Counted properties of `FaultOutcome`."""


def planted(outcomes: Sequence[FaultOutcome]) -> list[FaultOutcome]:
    """Returns the outcomes without those of clean runs."""
    return [outcome for outcome in outcomes if outcome.fault != CLEAN]


def clean(outcomes: Sequence[FaultOutcome]) -> list[FaultOutcome]:
    """Returns the outcomes of clean runs."""
    return [outcome for outcome in outcomes if outcome.fault == CLEAN]


def detectable(outcomes: Sequence[FaultOutcome]) -> list[FaultOutcome]:
    """Returns the faults that the judge should catch, and those it caught anyway."""
    # A run that could not be judged counts as missed.
    return [
        outcome
        for outcome in planted(outcomes)
        if outcome.expected or outcome.caught or outcome.complaint
    ]


def alarms(outcomes: Sequence[FaultOutcome]) -> list[FaultOutcome]:
    """Returns the clean runs that were judged to diverge."""
    return [outcome for outcome in clean(outcomes) if outcome.caught]


def is_enough(outcomes: Sequence[FaultOutcome]) -> bool:
    """Returns True if the score is good enough for exit code 0.

    All detectable faults are caught, enough of them located and explained, and no clean
    run raises an alarm.
    """
    seen = detectable(outcomes)
    return (
        all(outcome.caught for outcome in seen)
        and not any(alarms(outcomes))
        and sum(outcome.located for outcome in seen) >= LOCATED * len(seen)
        and sum(outcome.explained for outcome in seen) >= EXPLAINED * len(seen)
    )


def line(outcome: FaultOutcome) -> str:
    """Returns one outcome as a line."""
    head = f"{outcome.base} {outcome.precision} {outcome.fault}:"
    if outcome.complaint:
        return f"{head} NOT JUDGED, {outcome.complaint}"
    if outcome.fault == CLEAN:
        result = f"FALSE ALARM at {where(outcome.found)}" if outcome.found else "parity"
        return f"{head} {result}"
    if not outcome.caught:
        word = "MISSED" if outcome.expected else "below detection"
        return f"{head} {word}, moves a tensor by z {outcome.largest:.2g}"

    at = where(outcome.found)
    if not outcome.located:
        at += f" INSTEAD OF {where(outcome.expected)}"
    explained = "explained"
    if not outcome.explained:
        names = " + ".join(outcome.explanation) or "nothing"
        explained = f"NOT explained but by {names}"
    return f"{head} caught at {at}; {explained}"


def where(measurement: Measurement | None) -> str:
    """Returns step, quantity, tensor and z of a measurement in words."""
    if measurement is None:
        return "nowhere"
    z = "unequal" if measurement.z == UNEQUAL else f"z {measurement.z:.3g}"
    place = f"step {measurement.step} {measurement.quantity} {measurement.tensor}"
    # The tensor of a scalar quantity is empty.
    return f"{place.rstrip()} ({z})"


def by_fault(outcome: FaultOutcome) -> str:
    """Groups outcomes by fault."""
    return outcome.fault


def by_base(outcome: FaultOutcome) -> str:
    """Groups outcomes by base and precision."""
    return f"{outcome.base} {outcome.precision}"


def rows(
    outcomes: Sequence[FaultOutcome], key: Callable[[FaultOutcome], str]
) -> list[dict[str, Any]]:
    """Returns the counts of each group of planted faults.

    Args:
      outcomes: outcomes of all runs.
      key: `by_fault` or `by_base`.

    Returns:
      For each group its name, the counts "planted", "detectable" and `WORDS`, and under
      "below" the largest z of each fault that stays below detection.
    """
    names = dict.fromkeys(map(key, planted(outcomes)))
    return [
        _row(name, [outcome for outcome in planted(outcomes) if key(outcome) == name])
        for name in names
    ]


def _row(name: str, group: Sequence[FaultOutcome]) -> dict[str, Any]:
    seen = detectable(group)
    counts = {word: sum(getattr(outcome, word) for outcome in seen) for word in WORDS}
    below = {
        f"{outcome.base} {outcome.precision} {outcome.fault}": outcome.largest
        for outcome in group
        if outcome not in seen
    }
    return {
        "name": name,
        "planted": len(group),
        "detectable": len(seen),
        **counts,
        "below": below,
    }


def print_score(outcomes: Sequence[FaultOutcome], console: Console) -> None:
    """Prints a table by fault, a table by base and precision, and the totals."""
    for title, key in (("fault", by_fault), ("base", by_base)):
        table = Table(
            title,
            "planted",
            *WORDS,
            "below detection, with the largest z",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for row in rows(outcomes, key):
            below = ", ".join(f"{where} ({z:.2g})" for where, z in row["below"].items())
            table.add_row(
                row["name"],
                str(row["planted"]),
                *(f"{row[word]} of {row['detectable']}" for word in WORDS),
                # By base the list would repeat that of the first table.
                below if key is by_fault else str(len(row["below"])),
            )
        console.print(table)
    console.out(sentence(outcomes), highlight=False)


def sentence(outcomes: Sequence[FaultOutcome]) -> str:
    """Returns the totals in a sentence."""
    seen = detectable(outcomes)
    words = ", ".join(
        f"{word} {sum(getattr(outcome, word) for outcome in seen)} of {len(seen)}"
        for word in WORDS
    )
    return (
        f"{words}; {len(planted(outcomes)) - len(seen)} planted faults move no tensor "
        f"by more than its detectable error; {len(alarms(outcomes))} false alarms in "
        f"{len(clean(outcomes))} clean runs"
    )


def summary(outcomes: Sequence[FaultOutcome], commit: str) -> dict[str, Any]:
    """Returns the score without the single outcomes, as report.html shows it."""
    return {
        "commit": commit,
        "sentence": sentence(outcomes),
        "faults": rows(outcomes, by_fault),
        "bases": rows(outcomes, by_base),
    }


def as_json(outcomes: Sequence[FaultOutcome], commit: str) -> dict[str, Any]:
    """Returns the content of mutations.json: the summary and every outcome."""
    return {
        **summary(outcomes, commit),
        "outcomes": [_outcome_as_json(outcome) for outcome in outcomes],
    }


def _outcome_as_json(outcome: FaultOutcome) -> dict[str, Any]:
    return {
        **outcome._asdict(),
        # json would write a NamedTuple as a list.
        "largest": z_as_json(outcome.largest),
        "expected": measurement_as_json(outcome.expected),
        "found": measurement_as_json(outcome.found),
        **{word: getattr(outcome, word) for word in WORDS},
    }


def measurement_as_json(measurement: Measurement | None) -> dict[str, Any] | None:
    """Returns a measurement as JSON; None for none."""
    if measurement is None:
        return None
    return {**measurement._asdict(), "z": z_as_json(measurement.z)}
