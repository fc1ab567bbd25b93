"""How fast jaxnn trains an experiment, beside DeepSpeed and plain PyTorch.

    python -m parity.speed --flagfile=launch/benchmark/mlp.flags
    python -m parity.speed --flagfile=FILE --rounds=5 --competitors=jaxnn,best

Each competitor trains in fresh processes that take turns with the others', once to fill
caches (compiled programs, data), then once a round; medians over the rounds count.
jaxnn and DeepSpeed are jaxnn.train and torch_ref.train; eager is the loop of PyTorch's
tutorials; best is the fastest of plain PyTorch loops with tensors in memory and a fused
optimizer, with one thread and with all, and of the same under torch.compile. All
evaluate after each epoch. Precision is fp32 unless a flag says otherwise.

Prints a table, writes speed.json and speed.png. A competitor that fails is a row that
says so. The ratios are information: exit code 0 whatever they are, 2 on bad input.
Other work on the machine moves every figure.
"""

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags
from rich.console import Console

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.console import table_console
from parity.speed import comparison, competitors, measuring, settings, table
from parity.speed.comparison import Machine
from parity.speed.competitors import NAMES, flagfile_for
from parity.speed.measuring import Result

"""Columns where the output is no terminal."""
REPORT, PICTURE = "speed.json", "speed.png"


def main(experiment: Experiment, values: flags.FlagValues) -> int:
    """Measures all competitors asked for; returns the exit code."""
    check(experiment, values.competitors)
    load_dataset(experiment)  # Bad data are said before anything is started.
    root = make_folder(experiment)
    console = table_console()
    results, machine = measure(experiment, values, root, console)
    write(experiment, values.rounds, results, machine, root)
    table.print_table(title(experiment, values.rounds), results, machine, console)
    console.out(f"files: {root}", highlight=False)
    return 0


def check(experiment: Experiment, names: Sequence[str]) -> None:
    """Raises UserError on unknown competitors, and on flags that reach none of them."""
    command_line.check_known("competitors", names, NAMES)
    if not names:
        raise UserError(f"--competitors: give some of {', '.join(NAMES)}")
    if experiment.resume or experiment.init_params or experiment.record != "off":
        raise UserError(
            "--resume, --init_params, --record: every competitor starts anew and "
            "records nothing; leave them out"
        )


def measure(
    experiment: Experiment,
    values: flags.FlagValues,
    root: pathlib.Path,
    console: Console,
) -> tuple[list[Result], Machine]:
    """Lets the competitors run; returns their results and this machine's figures.

    Args:
      experiment: what they train; its flagfile is in the folder.
      values: competitors, rounds and seconds.
      root: folder of their runs.
      console: told what is under way.
    """
    who = competitors.chosen(experiment, values.competitors)
    console.out("measuring this machine's matrix products", highlight=False)
    machine = read_machine(root)

    def show(line: str) -> None:
        console.out(line, highlight=False)

    results = measuring.measure(who, root, values.rounds, values.most_seconds, show)
    return results, machine


def make_folder(experiment: Experiment) -> pathlib.Path:
    """Creates the folder of the runs, with the flagfile that all of them read.

    Raises:
      UserError: the folder exists.
    """
    fresh = f"runs/speed-{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    root = pathlib.Path(experiment.workdir or fresh)
    if root.exists() and not (experiment.overwrite and root.is_dir()):
        raise UserError(f"--workdir: {root} exists; choose another, or add --overwrite")
    root.mkdir(parents=True, exist_ok=True)
    artifacts.write_text(flagfile_for(root), options.to_flagfile(experiment))
    return root


def read_machine(root: pathlib.Path) -> Machine:
    """Returns what `roofline` finds in a process of its own; zeros if it fails."""
    flagfile = f"--flagfile={flagfile_for(root)}"
    done = subprocess.run(
        [sys.executable, "-m", "parity.speed.roofline", flagfile],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return Machine()
    return Machine(**json.loads(done.stdout.splitlines()[-1]))


def write(
    experiment: Experiment,
    rounds: int,
    results: list[Result],
    machine: Machine,
    root: pathlib.Path,
) -> dict[str, Any]:
    """Writes speed.json and speed.png; returns the contents of the former."""
    content = comparison.as_json(experiment, rounds, machine, results)
    artifacts.write_text(root / REPORT, json.dumps(content, indent=2) + "\n")
    if any(result.runs for result in results):
        # matplotlib takes long to import.
        from parity.speed import bars

        bars.draw(title(experiment, rounds), results, root / PICTURE)
    return content


def title(experiment: Experiment, rounds: int) -> str:
    """Returns what was measured, for table and picture."""
    of = f"median of {rounds} rounds" if rounds > 1 else "1 round"
    return f"{experiment.name}, {experiment.precision}, {of}"


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(
        main, __doc__, default_precision="fp32", define_more=settings.define
    )


if __name__ == "__main__":
    command()
