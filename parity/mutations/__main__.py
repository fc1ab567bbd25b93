"""Plants known differences in real runs and counts what the judge makes of them.

    python -m parity.mutations          # every fault in every base, in fp16 and fp32
    python -m parity.mutations --bases=mlp --precisions=fp32 --faults=adam_eps
    python -m parity.mutations --unknown    # differences that none of them is

Exit code 0: every fault that moves a tensor by more than its detectable error is
caught, 95 % of them are located, 90 % explained, and no clean run raises an alarm. 1:
otherwise. 2: could not judge. With --unknown, 0: what moves a tensor by more than its
detectable error is caught, and no name or figure is wrong.
"""

import json
import pathlib
import time
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from jaxnn import train
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.console import table_console
from jaxnn.experiment.results.time_left import TimeLeft
from parity import stacks
from parity.judging.measure import THRESHOLD
from parity.judging.verdict import COULD_NOT_JUDGE
from parity.mutations import score, table, unknown, unknown_score
from parity.mutations.bases import BASES, ONLY_PRECISIONS, PRECISIONS
from parity.mutations.score import FaultOutcome
from parity.report import published_score
from parity.semantics import SWITCHES


@train.settings_put_back()
def main(values: flags.FlagValues) -> int:
    """Plants and judges every fault asked for; returns the exit code."""
    bases = list(values.bases or BASES)
    given = list(values.precisions)
    faults = list(values.faults or ())
    command_line.check_known("bases", bases, BASES)
    command_line.check_known("precisions", given, (*PRECISIONS, "bf16"))
    command_line.check_known("faults", faults, SWITCHES)

    fresh = f"runs/{time.strftime('mutations-%Y%m%d-%H%M%S')}"
    root = pathlib.Path(values.workdir or fresh)
    if root.exists():
        raise UserError(f"--workdir: {root} exists; choose another or remove it")

    # Where the output is piped, rich assumes 80 columns and would cut the tables.
    console = table_console()
    cells = [
        (base, precision)
        for base in bases
        for precision in given or ONLY_PRECISIONS.get(base, PRECISIONS)
    ]
    if values.unknown:
        return plant_unknown(cells, root, console)
    commit = published_score.commit()
    outcomes: list[FaultOutcome] = []
    left = TimeLeft([1.0] * len(cells))
    for base, precision in cells:
        announce(base, precision, left, console)
        outcomes += run(base, precision, root, faults, console)
        # Each time, for whoever stops it within the hour.
        content = json.dumps(table.as_json(outcomes, commit), indent=2) + "\n"
        artifacts.write_text(root / "mutations.json", content)
    table.print_score(outcomes, console)
    if values.publish:
        published_score.write(table.summary(outcomes, commit))
    console.print(f"files: {root}", highlight=False)
    return 0 if table.is_enough(outcomes) else 1


def announce(base: str, precision: str, left: TimeLeft, console: Console) -> None:
    """Says which base begins, and how long the rest takes."""
    console.print(f"{base} {precision} ({left.next()})", highlight=False)


def run(
    base: str,
    precision: str,
    root: pathlib.Path,
    faults: Sequence[str],
    console: Console,
) -> list[FaultOutcome]:
    """Scores one base in one precision and prints a line per fault.

    Args:
      base: name of the base.
      precision: precision of the runs.
      root: folder of all runs.
      faults: names of the faults to plant; empty for all.
      console: console to print on.
    """
    experiment = configure(base, precision)
    start = time.perf_counter()
    folder = root / f"{base}-{precision}"
    outcomes = []
    for outcome in score.score(base, experiment, folder, faults, THRESHOLD):
        console.out(table.line(outcome), highlight=False)
        outcomes.append(outcome)

    seconds = time.perf_counter() - start
    console.print(
        f"{base} {precision}: {len(outcomes)} runs in {seconds:.0f} s", highlight=False
    )
    return outcomes


def configure(base: str, precision: str) -> Experiment:
    """Returns the experiment of a base, with JAX set up for it."""
    experiment, _ = command_line.parse(
        ["mutations", *BASES[base], f"--precision={precision}", f"--name={base}"],
        precision,
    )
    stacks.share_device()
    train.configure(experiment)
    return experiment


def plant_unknown(
    cells: Sequence[tuple[str, str]],
    root: pathlib.Path,
    console: Console,
) -> int:
    """Plants what no switch holds, prints and writes the score; returns the exit code.

    Args:
      cells: names of bases, each with a precision.
      root: folder of all runs.
      console: console to print on.
    """
    outcomes = []
    left = TimeLeft([1.0] * len(cells))
    for base, precision in cells:
        announce(base, precision, left, console)
        experiment = configure(base, precision)
        folder = root / f"{base}-{precision}"
        bench = score.set_up(base, experiment, folder, THRESHOLD)
        planted = list(unknown.differences(base, experiment))
        for outcome in unknown_score.plant(bench, planted):
            console.out(unknown_score.line(outcome), highlight=False)
            outcomes.append(outcome)
    unknown_score.print_score(outcomes, console)
    rows = unknown_score.as_json(outcomes, published_score.commit())
    artifacts.write_text(root / "unknown.json", json.dumps(rows, indent=2) + "\n")
    console.print(f"files: {root}", highlight=False)
    return 0 if unknown_score.is_enough(outcomes) else 1


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    flags.DEFINE_list(
        "bases",
        [],
        f"Experiments to plant in; empty: all of {', '.join(BASES)}.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "precisions",
        [],
        "Precisions to plant in; empty: fp16 and fp32, or what the base is made for.",
        flag_values=values,
    )
    flags.DEFINE_list("faults", [], "Faults to plant; empty: all.", flag_values=values)
    flags.DEFINE_bool(
        "unknown",
        False,
        "Plant differences that no switch holds instead, and count wrong names.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "publish",
        False,
        "Make this the score that every report.html shows.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir",
        "",
        "Folder of the runs; empty: a fresh one under runs/.",
        flag_values=values,
    )


if __name__ == "__main__":
    command_line.run_tool(main, __doc__, define_flags, crash_status=COULD_NOT_JUDGE)
