"""Prints judgements: a table of quantities, then a sentence on each recording."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from parity.judging.measure import Measurement, spell_worst, spell_z
from parity.judging.recording import Judgement
from parity.judging.verdict import Summary, Verdict
from parity.quantities import QUANTITIES


def print_judgements(
    judgements: Mapping[str, Judgement], title: str, console: Console
) -> None:
    """Prints the table, a sentence on each recording, and what explains a divergence.

    Args:
      judgements: recording's name -> judgement; the first is the one to judge.
      title: what was judged.
      console: where to print.
    """
    verdicts = {name: judged.verdict for name, judged in judgements.items()}
    print_verdicts(verdicts, title, console)
    for name, judged in judgements.items():
        for sentence in judged.sentences(name):
            console.out(f"{name}: {sentence}", highlight=False)


def print_verdicts(
    verdicts: Mapping[str, Verdict], title: str, console: Console
) -> None:
    """Prints a table with the worst z of each quantity, then a sentence on each.

    The column "detects" is the smallest relative error that would have failed, of the
    median tensor.

    Args:
      verdicts: recording's name -> verdict; the first is the one to judge.
      title: what was judged.
      console: where to print.
    """
    judged, *others = verdicts
    steps = verdicts[judged].steps
    table = Table(
        title=f"{title}: {steps} steps replayed, worst z of each quantity",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("quantity", no_wrap=True)
    table.add_column(f"{judged} z", justify="right", no_wrap=True)
    # Where a terminal is narrow, names break and figures stay whole.
    table.add_column("at", overflow="fold")
    for name in others:
        table.add_column(f"{name} z", justify="right", no_wrap=True)
    table.add_column("detects", justify="right", no_wrap=True)
    for quantity in QUANTITIES:
        if quantity in verdicts[judged].quantities:
            table.add_row(*_row(quantity, verdicts))
    console.print(table)
    for name, verdict in verdicts.items():
        console.out(_sentence(name, verdict), highlight=False)


def _row(quantity: str, verdicts: Mapping[str, Verdict]) -> list[str]:
    judged, *others = (v.quantities.get(quantity) for v in verdicts.values())
    assert judged, "a quantity without a row in the first recording has none at all"
    worst = judged.worst
    where = _place(worst.step, worst.tensor) if worst.z else ""
    return [
        QUANTITIES[quantity].label,
        _worst(quantity, judged),
        where,
        *(_worst(quantity, other) for other in others),
        _detects(quantity, judged),
    ]


def _worst(quantity: str, summary: Summary | None) -> str:
    return spell_worst(quantity, summary.worst.z) if summary else ""


def _detects(quantity: str, summary: Summary) -> str:
    if QUANTITIES[quantity].is_exact:
        return "any"
    return f"{summary.detectable_median:.1e}"


def _sentence(name: str, verdict: Verdict) -> str:
    allowed = f"{verdict.threshold:g} allowed"
    first = verdict.first_divergence
    if first is None:
        closely = verdict.steps_measured_closely
        note = (
            f" ({closely} of {verdict.steps} steps took more draws of noise)"
            if closely
            else ""
        )
        worst = f"{verdict.max_z:.2f}"
        return f"{name}: parity, worst z {worst} of {allowed}{note}{_blunt(verdict)}"
    where = _place(first.step, first.tensor)
    return (
        f"{name}: DIVERGENCE, first at {where} ({first.definition.label}), "
        f"z {spell_z(first.z)} of {allowed}{_gap(first)}"
    )


def _blunt(verdict: Verdict) -> str:
    """Returns what a parity says nothing about, or nothing."""
    if not verdict.blunt:
        return ""
    (quantity, tensor), error = max(verdict.blunt.items(), key=lambda item: item[1])
    where = f"{QUANTITIES[quantity].label} {tensor}".rstrip()
    count = len(verdict.blunt)
    others = f" and {count - 1} more" if count > 1 else ""
    return (
        f"; {where}{others} would pass with an error of a tenth, the first with "
        f"{error:.0%}: rounding alone is as large there"
    )


def _gap(first: Measurement) -> str:
    return f": {first.gap}" if first.gap else ""


def _place(step: int, tensor: str) -> str:
    return f"step {step} {tensor}".rstrip()
