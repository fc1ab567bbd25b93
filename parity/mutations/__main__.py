"""Plants every known difference in real runs and counts what the judge catches, locates
and explains.

    python -m parity.mutations                                         # the score: every base, fp16 and fp32
    python -m parity.mutations --bases=mlp --precisions=fp32 --faults=adam_eps,dropout_off

Exit code 0: all that moves a tensor by more than its detectable error is caught, 95 %
of it located, 90 % explained, and no clean run raises an alarm; 1: otherwise; 2: could
not judge.
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
from parity.judging.measure import THRESHOLD
from parity.judging.verdict import COULD_NOT_JUDGE
from parity.mutations import score, table
from parity.mutations.bases import BASES
from parity.mutations.score import FaultOutcome
from parity.report import published_score
from parity.semantics import SWITCHES

PRECISIONS = ("fp16", "fp32")


def main(values: flags.FlagValues) -> int:
    """Flags -> runs -> table."""
    bases, precisions, faults = (
        list(values[name].value or ()) for name in ("bases", "precisions", "faults")
    )
    for flag, given, known in (
        ("bases", bases, BASES),
        ("precisions", precisions, (*PRECISIONS, "bf16")),
        ("faults", faults, SWITCHES),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise UserError(
                f"--{flag}: unknown {unknown[0]!r}; known: {', '.join(known)}"
            )
    root = pathlib.Path(
        values["workdir"].value or f"runs/{time.strftime('mutations-%Y%m%d-%H%M%S')}"
    )
    if root.exists():
        raise UserError(f"--workdir: {root} exists; choose another or remove it")
    console = Console(width=None if Console().is_terminal else 120)
    outcomes = [
        outcome
        for base in bases or BASES
        for precision in precisions
        for outcome in run(base, precision, root, faults, console)
    ]
    table.print_score(outcomes, console)
    commit = published_score.commit()
    artifacts.write_text(
        root / "mutations.json",
        json.dumps(table.as_json(outcomes, commit), indent=2) + "\n",
    )
    if values["publish"].value:
        published_score.write(table.summary(outcomes, commit))
    console.print(f"files: {root}", highlight=False)
    return 0 if table.is_enough(outcomes) else 1


def run(
    base: str,
    precision: str,
    root: pathlib.Path,
    faults: Sequence[str],
    console: Console,
) -> list[FaultOutcome]:
    """One base in one precision; prints a line on each fault."""
    experiment, _ = command_line.parse(
        ["mutations", *BASES[base], f"--precision={precision}", f"--name={base}"],
        precision,
    )
    train.configure(experiment)
    start, outcomes = time.perf_counter(), []
    for outcome in score.score(
        base, experiment, root / f"{base}-{precision}", faults, THRESHOLD
    ):
        console.print(table.line(outcome), highlight=False, soft_wrap=True)
        outcomes.append(outcome)
    console.print(
        f"{base} {precision}: {len(outcomes)} runs in "
        f"{time.perf_counter() - start:.0f} s",
        highlight=False,
    )
    return outcomes


def define_flags(values: flags.FlagValues) -> None:
    """What to plant where."""
    flags.DEFINE_list(
        "bases",
        [],
        f"Experiments to plant in; empty: all of {', '.join(BASES)}.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "precisions", list(PRECISIONS), "Precisions to plant in.", flag_values=values
    )
    flags.DEFINE_list("faults", [], "Faults to plant; empty: all.", flag_values=values)
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
