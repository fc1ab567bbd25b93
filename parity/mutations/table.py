"""The score as a person reads it, and as a program does."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from parity.compare import BROKEN, Measurement
from parity.mutations.score import CLEAN, Outcome

LOCATED, EXPLAINED = 0.95, 0.90
"""Shares of what was caught that must be located and explained."""


def planted(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Without the clean runs."""
    return [outcome for outcome in outcomes if outcome.fault != CLEAN]


def detectable(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The faults that move a tensor by more than its detectable error, and those that the judge caught anyway."""
    return [outcome for outcome in planted(outcomes) if outcome.expected or outcome.caught or outcome.complaint]


def is_enough(outcomes: Sequence[Outcome]) -> bool:
    """Whether all is caught, enough of it located and explained, and nothing clean is."""
    seen = detectable(outcomes)
    return (all(outcome.caught for outcome in seen) and not any(alarms(outcomes))
            and sum(outcome.located for outcome in seen) >= LOCATED * len(seen)
            and sum(outcome.explained for outcome in seen) >= EXPLAINED * len(seen))


def alarms(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Clean runs that were judged to diverge."""
    return [outcome for outcome in outcomes if outcome.fault == CLEAN and outcome.caught]


def line(outcome: Outcome) -> str:
    """One fault in one line."""
    head = f"{outcome.base} {outcome.precision} {outcome.fault}:"
    if outcome.complaint:
        return f"{head} NOT JUDGED, {outcome.complaint}"
    if outcome.fault == CLEAN:
        return f"{head} {'FALSE ALARM at ' + _where(outcome.found) if outcome.found else 'parity'}"
    if not outcome.caught:
        word = "MISSED" if outcome.expected else "below detection"
        return f"{head} {word}, moves a tensor by z {outcome.largest:.2g}"
    at = _where(outcome.found) + ("" if outcome.located else f" INSTEAD OF {_where(outcome.expected)}")
    return f"{head} caught at {at}; {'' if outcome.explained else 'NOT '}explained" + (
        "" if outcome.explained else f" but by {' + '.join(outcome.explanation) or 'nothing'}")


def print_score(outcomes: Sequence[Outcome], console: Console) -> None:
    """Prints a row per fault and the totals."""
    table = Table("fault", "planted in", "caught", "located", "explained", "below detection in", box=box.SIMPLE_HEAD,
                  pad_edge=False)
    for fault in dict.fromkeys(outcome.fault for outcome in planted(outcomes)):
        rows = [outcome for outcome in outcomes if outcome.fault == fault]
        seen = detectable(rows)
        unseen = ", ".join(f"{o.base} {o.precision} (z {o.largest:.2g})" for o in rows if o not in seen)
        table.add_row(fault, str(len(rows)), *(f"{sum(getattr(o, word) for o in seen)} of {len(seen)}"
                                               for word in ("caught", "located", "explained")), unseen)
    console.print(table)
    console.print(sentence(outcomes), highlight=False, soft_wrap=True)


def sentence(outcomes: Sequence[Outcome]) -> str:
    """The totals."""
    seen, clean = detectable(outcomes), [outcome for outcome in outcomes if outcome.fault == CLEAN]
    words = ", ".join(f"{word} {sum(getattr(outcome, word) for outcome in seen)} of {len(seen)}"
                      for word in ("caught", "located", "explained"))
    return (f"{words}; {len(planted(outcomes)) - len(seen)} planted faults move no tensor by more than its detectable "
            f"error; {len(alarms(outcomes))} false alarms in {len(clean)} clean runs")


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What mutations.json holds."""
    return {"sentence": sentence(outcomes), "outcomes": [
        {**outcome._asdict(), "expected": outcome.expected and outcome.expected._asdict(),
         "found": outcome.found and outcome.found._asdict(), "caught": outcome.caught, "located": outcome.located,
         "explained": outcome.explained} for outcome in outcomes]}


def _where(measurement: Measurement | None) -> str:
    if measurement is None:
        return "nowhere"
    z = "unequal" if measurement.z >= BROKEN else f"z {measurement.z:.3g}"
    return " ".join(f"step {measurement.step} {measurement.quantity} {measurement.tensor}".split()) + f" ({z})"
