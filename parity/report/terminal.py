"""The verdict as a person reads it."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from parity.judging.measure import BROKEN, EXACT, PHASES

EXPLANATION = {
    "params": "state before",
    "batch": "sample ids",
    "optimizer_step": "updates applied",
    "learning_rate": "learning rate",
    "loss_scale": "loss scale",
    "skipped": "overflow decision",
    "unchanged": "skipped unchanged",
    "activations": "activations",
    "loss": "loss",
    "batch_stats": "running statistics",
    "grads": "gradients",
    "grad_norm": "gradient norm",
    "moments": "moments",
    "updated": "updated parameters",
}


def print_verdict(
    verdicts: Mapping[str, Mapping[str, Any]], title: str, console: Console
) -> None:
    """Prints a table of quantities with each recording's worst z, then a sentence on
    each recording.

    Args:
      verdicts: recording's name -> verdict, as `compare.verdict` returns it; the first
        is the one to judge.
      title: what was judged.
      console: where to.

    The column "detects" is the smallest relative error that would have failed, of the
    median tensor.
    """
    judged, *others = verdicts
    table = Table(
        title=(
            f"{title}: {verdicts[judged]['steps']} steps replayed, worst z of each "
            "quantity"
        ),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for header, justify in (
        ("quantity", "left"),
        (f"{judged} z", "right"),
        ("at", "left"),
        *((f"{name} z", "right") for name in others),
        ("detects", "right"),
    ):
        table.add_column(header, justify=justify, no_wrap=True)
    for quantity in PHASES:
        row, *more = (verdict["quantities"][quantity] for verdict in verdicts.values())
        if row["compared"]:
            where = "" if row["max_z"] == 0 else _where(row["step"], row["tensor"])
            table.add_row(
                EXPLANATION[quantity],
                _worst(row, quantity),
                where,
                *(_worst(other, quantity) for other in more),
                _detectable(row, quantity),
            )
    console.print(table)
    for name, verdict in verdicts.items():
        console.print(_sentence(name, verdict), highlight=False, soft_wrap=True)


def _worst(row: Mapping[str, Any], quantity: str) -> str:
    if not row["compared"]:
        return ""
    return "equal" if quantity in EXACT and row["max_z"] == 0 else z(row["max_z"])


def _detectable(row: Mapping[str, Any], quantity: str) -> str:
    if quantity in EXACT:
        return "any"
    return f"{row['detectable_median']:.1e}"


def _sentence(name: str, verdict: Mapping[str, Any]) -> str:
    first = verdict["first_divergence"]
    if first is None:
        closely = verdict["steps_measured_closely"]
        note = (
            f" ({closely} of {verdict['steps']} steps took more draws of noise)"
            if closely
            else ""
        )
        return (
            f"{name}: parity, worst z {verdict['max_z']:.2f} of "
            f"{verdict['threshold']:g} allowed{note}"
        )
    return (
        f"{name}: DIVERGENCE, first at {_where(first['step'], first['tensor'])} "
        f"({EXPLANATION[first['quantity']]}), z {z(first['z'])} of "
        f"{verdict['threshold']:g} allowed"
    )


def _where(step: int, tensor: str) -> str:
    return f"step {step} {tensor}".rstrip()


def z(value: float) -> str:
    """A distance in noise units, as every report spells it."""
    if value == BROKEN:
        return "unequal"
    return f"{value:.2f}" if value < 1000 else f"{value:.1e}"
