"""The score as a person reads it, and as a program does."""

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from parity.judging.measure import UNEQUAL, Measurement
from parity.mutations.score import CLEAN, FaultOutcome

LOCATED, EXPLAINED = 0.95, 0.90
"""Shares of what was caught that must be located and explained."""
WORDS = ("caught", "located", "explained")


def planted(outcomes: Sequence[FaultOutcome]) -> list[FaultOutcome]:
    """Without the clean runs."""
    return [outcome for outcome in outcomes if outcome.fault != CLEAN]


def detectable(outcomes: Sequence[FaultOutcome]) -> list[FaultOutcome]:
    """The faults that move a tensor by more than its detectable error, and those that
    the judge caught anyway."""
    return [
        outcome
        for outcome in planted(outcomes)
        if outcome.expected or outcome.caught or outcome.complaint
    ]


def is_enough(outcomes: Sequence[FaultOutcome]) -> bool:
    """Whether all is caught, enough of it located and explained, and nothing clean is."""
    seen = detectable(outcomes)
    return (
        all(outcome.caught for outcome in seen)
        and not any(alarms(outcomes))
        and sum(outcome.located for outcome in seen) >= LOCATED * len(seen)
        and sum(outcome.explained for outcome in seen) >= EXPLAINED * len(seen)
    )


def alarms(outcomes: Sequence[FaultOutcome]) -> list[FaultOutcome]:
    """Clean runs that were judged to diverge."""
    return [
        outcome for outcome in outcomes if outcome.fault == CLEAN and outcome.caught
    ]


def line(outcome: FaultOutcome) -> str:
    """One fault in one line."""
    head = f"{outcome.base} {outcome.precision} {outcome.fault}:"
    if outcome.complaint:
        return f"{head} NOT JUDGED, {outcome.complaint}"
    if outcome.fault == CLEAN:
        return (
            f"{head} "
            f"{'FALSE ALARM at ' + _where(outcome.found) if outcome.found else 'parity'}"
        )
    if not outcome.caught:
        word = "MISSED" if outcome.expected else "below detection"
        return f"{head} {word}, moves a tensor by z {outcome.largest:.2g}"
    at = _where(outcome.found) + (
        "" if outcome.located else f" INSTEAD OF {_where(outcome.expected)}"
    )
    return f"{head} caught at {at}; {'' if outcome.explained else 'NOT '}explained" + (
        ""
        if outcome.explained
        else f" but by {' + '.join(outcome.explanation) or 'nothing'}"
    )


def rows(
    outcomes: Sequence[FaultOutcome], key: Callable[[FaultOutcome], str]
) -> list[dict[str, Any]]:
    """The counts of each group of planted faults, and what of it stays below detection,
    with its largest z."""
    counted = []
    for name in dict.fromkeys(map(key, planted(outcomes))):
        group = [outcome for outcome in planted(outcomes) if key(outcome) == name]
        seen = detectable(group)
        counted.append(
            {
                "name": name,
                "planted": len(group),
                "detectable": len(seen),
                **{
                    word: sum(getattr(outcome, word) for outcome in seen)
                    for word in WORDS
                },
                "below": {
                    f"{o.base} {o.precision} {o.fault}": o.largest
                    for o in group
                    if o not in seen
                },
            }
        )
    return counted


def print_score(outcomes: Sequence[FaultOutcome], console: Console) -> None:
    """Prints a row per fault, a row per base and precision, and the totals."""
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
                below if key is by_fault else str(len(row["below"])),
            )
        console.print(table)
    console.print(sentence(outcomes), highlight=False, soft_wrap=True)


def by_fault(outcome: FaultOutcome) -> str:
    """What was planted."""
    return outcome.fault


def by_base(outcome: FaultOutcome) -> str:
    """What it was planted in."""
    return f"{outcome.base} {outcome.precision}"


def sentence(outcomes: Sequence[FaultOutcome]) -> str:
    """The totals."""
    seen, clean = (
        detectable(outcomes),
        [outcome for outcome in outcomes if outcome.fault == CLEAN],
    )
    words = ", ".join(
        f"{word} {sum(getattr(outcome, word) for outcome in seen)} of {len(seen)}"
        for word in WORDS
    )
    return (
        f"{words}; {len(planted(outcomes)) - len(seen)} planted faults move no tensor "
        f"by more than its detectable error; {len(alarms(outcomes))} false alarms in "
        f"{len(clean)} clean runs"
    )


def summary(outcomes: Sequence[FaultOutcome], commit: str) -> dict[str, Any]:
    """The score without the single outcomes, as every report shows it."""
    return {
        "commit": commit,
        "sentence": sentence(outcomes),
        "faults": rows(outcomes, by_fault),
        "bases": rows(outcomes, by_base),
    }


def as_json(outcomes: Sequence[FaultOutcome], commit: str) -> dict[str, Any]:
    """What mutations.json holds."""
    return {
        **summary(outcomes, commit),
        "outcomes": [
            {
                **outcome._asdict(),
                "expected": outcome.expected and outcome.expected._asdict(),
                "found": outcome.found and outcome.found._asdict(),
                "caught": outcome.caught,
                "located": outcome.located,
                "explained": outcome.explained,
            }
            for outcome in outcomes
        ],
    }


def _where(measurement: Measurement | None) -> str:
    if measurement is None:
        return "nowhere"
    z = "unequal" if measurement.z == UNEQUAL else f"z {measurement.z:.3g}"
    return (
        " ".join(
            f"step {measurement.step} {measurement.quantity} "
            f"{measurement.tensor}".split()
        )
        + f" ({z})"
    )
