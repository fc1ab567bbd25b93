"""Plants differences that no switch holds and counts the wrong names they are given."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from parity.judging.measure import Measurement, first_failed
from parity.judging.recording import Judgement, judge_recording
from parity.mutations import score, wrong_names
from parity.mutations.bench import CLEAN, Bench, record
from parity.mutations.plan import STEPS, Mutant
from parity.mutations.table import measurement_as_json, where
from parity.mutations.unknown import as_switch
from parity.quantities import PARTS
from parity.semantics.switch import Switch

COUNTED = ("planted", "silent", "caught", "located", "named")


class UnknownOutcome(NamedTuple):
    """Outcome of one difference that no switch holds.

    Attributes:
      base: name of the base.
      precision: precision of the run.
      difference: the flag that the torch side was given.
      expected: where the difference, applied to jaxnn's own run, first moves a tensor
        by more than the judge can see, or None if nowhere.
      found: first divergence that the judge reports, or None at parity.
      said: what the judge says of the cause; empty at parity.
      names: switches and measured figures that it claims.
      wrong: those of them that are not what was planted.
      complaint: why the run could not be judged; empty if it could.
    """

    base: str
    precision: str
    difference: str
    expected: Measurement | None
    found: Measurement | None
    said: str = ""
    names: Sequence[str] = ()
    wrong: Sequence[str] = ()
    complaint: str = ""

    @property
    def silent(self) -> bool:
        """True if it moves nothing by more than its detectable error."""
        return not (self.expected or self.found or self.complaint)

    @property
    def caught(self) -> bool:
        """True if the judge reports a divergence."""
        return self.found is not None

    @property
    def located(self) -> bool:
        """True if the judge names the step and quantity where it first shows."""
        return score.is_located(self.found, self.expected)

    @property
    def named(self) -> bool:
        """True if the judge claims to know a cause, or a figure of one."""
        return bool(self.names)


def plant(bench: Bench, planted: Sequence[Mutant]) -> Iterator[UnknownOutcome]:
    """Records differences in a base and yields their outcomes.

    Args:
      bench: base, not yet recorded.
      planted: as from `unknown.differences`.
    """
    statuses = record(bench, planted)
    # What DeepSpeed itself does otherwise in this base is true of every run.
    shown = wrong_names.measured(_judgement(bench, CLEAN))
    clean = {one.sentence for one in shown}
    for difference, status in zip(planted, statuses[1:]):
        yield _judge(bench, difference, status, clean)


def _judge(
    bench: Bench, difference: Mutant, status: int, clean: Collection[str]
) -> UnknownOutcome:
    known = bench.base, bench.experiment.precision, difference.name
    if status and not bench.num_recorded(difference.name):
        return UnknownOutcome(*known, None, None, complaint=f"exit code {status}")
    planted = as_switch(difference)
    expected = _expectation(bench, planted)
    judgement = _judgement(bench, difference.name)
    found = judgement.verdict.first_divergence
    if found is None:
        return UnknownOutcome(*known, expected, None)
    figures = wrong_names.measured(judgement)
    figures = [one for one in figures if one.sentence not in clean]
    flag = difference.name.partition("=")[0]
    return UnknownOutcome(
        *known,
        expected,
        found,
        " | ".join(judgement.sentences("torch")),
        [*_labels(judgement), *(one.sentence for one in figures)],
        [
            *wrong_names.wrong_switches(bench, judgement, planted),
            *wrong_names.wrong_figures(
                figures, flag, bench.experiment, difference.experiment
            ),
        ],
    )


def _judgement(bench: Bench, name: str) -> Judgement:
    trace = bench.trace(name)
    return judge_recording(bench.replays, trace, bench.initial, bench.threshold)


def _expectation(bench: Bench, planted: Switch) -> Measurement | None:
    """Returns where the difference first shows in jaxnn's own recording."""
    # A part at a time, as each is judged from what was recorded of the one before.
    alone = [
        score.expectation(bench, (planted._replace(parts=(part,)),), range(STEPS))[0]
        for part in PARTS
    ]
    return first_failed([m for m in alone if m], bench.threshold, ())


def _labels(judgement: Judgement) -> list[str]:
    return [
        " + ".join(switch.name for switch in switches)
        for switches in wrong_names.named(judgement)
    ]


def line(outcome: UnknownOutcome) -> str:
    """Returns one outcome as a line."""
    head = f"{outcome.base} {outcome.precision} {outcome.difference}:"
    if outcome.complaint:
        return f"{head} NOT JUDGED, {outcome.complaint}"
    if not outcome.caught:
        missed = f"MISSED at {where(outcome.expected)}"
        return f"{head} {'silent' if outcome.silent else missed}"
    at = where(outcome.found)
    if not outcome.located:
        at += f" INSTEAD OF {where(outcome.expected)}"
    wrong = f"; WRONG: {'; '.join(outcome.wrong)}" if outcome.wrong else ""
    return f"{head} caught at {at}; {outcome.said}{wrong}"


def is_enough(outcomes: Sequence[UnknownOutcome]) -> bool:
    """Returns True if what shows was caught, and nothing was given a wrong name."""
    return all(o.silent or o.caught for o in outcomes) and not any(
        o.wrong for o in outcomes
    )


def print_score(outcomes: Sequence[UnknownOutcome], console: Console) -> None:
    """Prints the counts of each precision and base."""
    table = Table("base", *COUNTED, "wrong names", box=box.SIMPLE_HEAD, pad_edge=False)
    groups = dict.fromkeys((o.precision, o.base) for o in outcomes)
    for precision, base in groups:
        group = [o for o in outcomes if (o.precision, o.base) == (precision, base)]
        table.add_row(f"{base} {precision}", *map(str, _counts(group).values()))
    for precision in dict.fromkeys(o.precision for o in outcomes):
        group = [o for o in outcomes if o.precision == precision]
        table.add_row(precision, *map(str, _counts(group).values()))
    table.add_row("all", *map(str, _counts(outcomes).values()))
    console.print(table)


def _counts(outcomes: Sequence[UnknownOutcome]) -> dict[str, int]:
    return {
        "planted": len(outcomes),
        **{word: sum(getattr(o, word) for o in outcomes) for word in COUNTED[1:]},
        "wrong": sum(bool(o.wrong) for o in outcomes),
    }


def as_json(outcomes: Sequence[UnknownOutcome], commit: str) -> dict[str, Any]:
    """Returns the content of unknown.json."""
    rows = [
        {
            **outcome._asdict(),
            "expected": measurement_as_json(outcome.expected),
            "found": measurement_as_json(outcome.found),
        }
        for outcome in outcomes
    ]
    return {"commit": commit, **_counts(outcomes), "outcomes": rows}
