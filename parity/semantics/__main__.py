"""Lists the known differences that a diagnosis tries and `parity.mutations` plants.

    python -m parity.semantics
    python -m parity.semantics --flagfile=launch/experiments/lstm_sine.flags

The second lists those that can act on an experiment.

"Shows in" is the part of a step where a difference first does: rules (batches, rates,
scales, counters, where a step begins), gradients (activations, loss, gradients, norm,
skips) or update (moments, parameters). References to MISMATCHES are to
parity/semantics/MISMATCHES.md.
"""

import sys

from rich import box
from rich.table import Table

from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.console import table_console
from parity.semantics import SWITCHES


def main(experiment: Experiment) -> None:
    """Prints the catalogue; if flags are given, what can act on that experiment."""
    asked = len(sys.argv) > 1
    table = Table(
        "switch",
        "shows in",
        "what the other stack did",
        "reference",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for switch in SWITCHES.values():
        if not asked or switch.applies(experiment):
            table.add_row(
                switch.name,
                ", ".join(switch.parts),
                switch.explanation,
                switch.reference,
            )
    table_console(piped=200).print(table)
    print(f"{table.row_count} of {len(SWITCHES)} switches")


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(main, __doc__, default_precision="fp16")


if __name__ == "__main__":
    command()
