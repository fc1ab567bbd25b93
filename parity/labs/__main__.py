"""Runs labs: small experiments, each a page of pictures, figures and claims.

    python -m parity.labs                        # all of them
    python -m parity.labs optimizers gradients
    python -m parity.labs surface --reduced      # seconds, to see whether it works

Each lab writes NAME.html into --workdir. A claim is a measured figure against a bound;
exit code 1 if one is not met, 2 on bad input.
"""

import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
from absl import flags
from rich import box
from rich.table import Table

from jaxnn import spreading
from jaxnn.experiment import cores
from jaxnn.experiment.data.at_hand import missing_data
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.console import table_console
from parity.labs import page
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Lab
from parity.labs.subjects import LABS

FLAGFILES = pathlib.Path("launch/labs")
"""Columns where the output is no terminal."""


class Outcome(NamedTuple):
    """How a lab ended.

    Attributes:
      name: of the lab.
      claims: that it had to keep.
      seconds: wall time.
      page: file that it wrote.
    """

    name: str
    claims: list[Claim]
    seconds: float
    page: pathlib.Path


def main(arguments: Arguments) -> int:
    """Names -> pages and a table; returns 1 if a claim is not met, else 0.

    Raises:
      UserError: there is no such lab, or its flags are bad.
    """
    values = arguments.values
    names = chosen(arguments.names)
    root = pathlib.Path(values.workdir or time.strftime("runs/labs-%Y%m%d-%H%M%S"))
    outcomes = []
    for name in names:
        print(f"{name} ...", flush=True)
        outcomes.append(run(name, root, values.reduced, values.data_path))
    return report(outcomes)


def chosen(names: Sequence[str]) -> list[str]:
    """Returns the labs to run, all without a name.

    Raises:
      UserError: there is no such lab, or their flagfiles are not here.
    """
    if not FLAGFILES.is_dir():
        raise UserError(
            f"{FLAGFILES}: no such folder; start it where jaxnn's README is"
        )
    for name in names:
        if name not in LABS:
            raise UserError(f"{name}: no such lab; known: {', '.join(LABS)}")
    return list(dict.fromkeys(names)) or list(LABS)


def run(
    name: str, root: pathlib.Path, is_reduced: bool = False, data_path: str = ""
) -> Outcome:
    """Runs one lab and writes its page.

    Args:
      name: of the lab.
      root: folder of the pages.
      is_reduced: as `--reduced`.
      data_path: as `--data_path`.
    """
    start = time.perf_counter()
    (root / name).mkdir(parents=True, exist_ok=True)
    lab = LABS[name]
    flagged, note = flags_of(name, lab, is_reduced, data_path)
    findings = lab.measure(Bench(flagged, root / name, is_reduced))
    seconds = time.perf_counter() - start
    path = root / f"{name}.html"
    known = facts(name, seconds, is_reduced, note)
    page.write(path, lab, findings, is_reduced, known)
    claims = page.judged(findings.claims, is_reduced)
    return Outcome(name, claims, seconds, path)


def flags_of(
    name: str, lab: Lab, is_reduced: bool, data_path: str
) -> tuple[tuple[str, ...], str]:
    """Returns the flags of a lab, and a note on the data that it asked for."""
    path = FLAGFILES / f"{name}.flags"
    flagged = (f"--flagfile={path}",) if path.exists() else ()
    note = ""
    if lab.with_data and data_path:
        larger = (*flagged, *lab.with_data, f"--data_path={data_path}")
        note = missing_data(larger)
        flagged = flagged if note else larger
    return flagged + (lab.reduced if is_reduced else ()), note


def facts(name: str, seconds: float, is_reduced: bool, note: str) -> dict[str, str]:
    """Returns what the page says of the machine and the run."""
    path = FLAGFILES / f"{name}.flags"
    command = f"python -m parity.labs {name}" + " --reduced" * is_reduced
    known = {
        "command": command,
        "seconds": f"{seconds:.1f}",
        "machine": f"{cores.usable()} cores, {cores.processor()}",
        "devices": ", ".join(sorted({d.device_kind for d in jax.devices()})),
        "JAX": jax.__version__,
        "date": time.strftime("%F"),
    }
    if path.exists():
        known["flags"] = path.read_text().strip()
    return known | ({"data": note} if note else {})


def report(outcomes: Sequence[Outcome]) -> int:
    """Prints the table and what is not met; returns the exit code."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("lab", "claims met", "seconds", "page"):
        table.add_column(header, no_wrap=True)
    for name, claims, seconds, path in outcomes:
        met = sum(claim.is_met for claim in claims)
        table.add_row(name, f"{met} of {len(claims)}", f"{seconds:.1f}", str(path))
    console = table_console()
    console.print(table)
    broken = [(o.name, c) for o in outcomes for c in o.claims if not c.is_met]
    for name, claim in broken:
        console.out(f"{name}: not met: {claim.text}: {claim.figures}", highlight=False)
    return 1 if broken else 0


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    flags.DEFINE_boolean(
        "reduced",
        False,
        "Fewer seeds, settings and epochs: seconds a lab; claims that need the full "
        "size are not held.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir",
        "",
        "Folder of the pages; empty: a fresh one under runs/.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_path",
        "",
        "Folder with the official files of CIFAR-10 or Fashion-MNIST, for labs that "
        "can use them; without them they train on digits.",
        flag_values=values,
    )


def program(arguments: Arguments) -> int:
    """Does as `main`, with each core of a CPU a device."""
    spreading.offer_cores(Experiment())
    return main(arguments)


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_on_names(program, __doc__, define_flags)


if __name__ == "__main__":
    command()
