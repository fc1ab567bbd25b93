"""The verdict as a person reads it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from parity.compare import BROKEN, EXACT, PHASES

EXPLANATION = {
    "params": "state before the step",
    "batch": "sample ids", "optimizer_step": "updates applied", "learning_rate": "learning rate",
    "loss_scale": "loss scale", "skipped": "overflow decision", "unchanged": "skipped steps change nothing",
    "loss": "loss", "grads": "gradients", "moments": "moments", "updated": "updated parameters",
}


def print_verdict(verdicts: Mapping[str, Mapping[str, Any]], title: str, console: Console) -> None:
    """Prints a table of quantities, a column group for each recording.

    Args:
      verdicts: recording's name -> verdict, as `compare.verdict` returns it.
      title: what was judged.
      console: where to.
    """
    steps = next(iter(verdicts.values()))["steps"]
    table = Table(title=f"{title}: {steps} steps replayed", title_justify="left")
    table.add_column("quantity")
    for name in verdicts:
        table.add_column(f"{name}: worst z", justify="right")
        table.add_column("where")
    table.add_column("smallest error caught", justify="right")
    for quantity in PHASES:
        rows = [v["quantities"].get(quantity, {"compared": 0}) for v in verdicts.values()]
        if any(row["compared"] for row in rows):
            table.add_row(EXPLANATION[quantity], *sum((_cells(row, quantity) for row in rows), ()),
                          _detectable(rows[0], quantity))
    console.print(table)
    for name, verdict in verdicts.items():
        console.print(_sentence(name, verdict), highlight=False)


def _cells(row: Mapping[str, Any], quantity: str) -> tuple[str, str]:
    if not row["compared"]:
        return "", ""
    if quantity in EXACT and row["max_z"] == 0:
        return "equal", ""
    return _z(row["max_z"]), _where(row["step"], row["tensor"])


def _detectable(row: Mapping[str, Any], quantity: str) -> str:
    if quantity in EXACT:
        return "any"
    return f"{row['detectable_median']:.1e}" if row["compared"] else ""


def _sentence(name: str, verdict: Mapping[str, Any]) -> str:
    first = verdict["first_divergence"]
    if first is None:
        closely = verdict["steps_measured_closely"]
        note = f"; {closely} steps needed more draws of noise" if closely else ""
        return f"{name}: parity, worst z {verdict['max_z']:.2f} of {verdict['threshold']:g} allowed{note}"
    return (f"{name}: DIVERGENCE, first at {_where(first['step'], first['tensor'])} "
            f"({EXPLANATION[first['quantity']]}), z {_z(first['z'])} of {verdict['threshold']:g} allowed")


def _where(step: int, tensor: str) -> str:
    return f"step {step} {tensor}".rstrip()


def _z(z: float) -> str:
    return "not equal" if z == BROKEN else f"{z:.3g}"
