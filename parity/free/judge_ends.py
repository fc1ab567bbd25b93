"""Free mode: trains both stacks to the end and judges where they end."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from parity import stacks
from parity.free.end import read
from parity.free.spread import RUNS, measure
from parity.free.verdict import CHAOTIC, DIVERGENCE, SAME, EndVerdict, judge
from parity.judging.measure import THRESHOLD, spell_z, z_as_json

KINDS = {"params": "parameters", "batch_stats": "running statistics"}
"""Kind of tensor -> label of its row in the table."""


def main(
    experiment: Experiment,
    data: Dataset,
    initial: Mapping[str, np.ndarray],
    workdir: pathlib.Path,
    modules: Mapping[str, str],
    torch_flags: Sequence[str],
    console: Console,
    threshold: float = THRESHOLD,
) -> bool:
    """Trains and judges both stacks, prints the verdict and writes verdict.json.

    Args:
      experiment: experiment to train; early stopping is switched off.
      data: data set.
      initial: flat float32 parameters that both stacks start from.
      workdir: folder with the flagfile and initial.safetensors.
      modules: module that trains each stack, "jax" and "torch".
      torch_flags: additional flags for the torch side.
      console: console to print on.
      threshold: largest z that passes.

    Returns:
      True if neither stack diverges.

    Raises:
      UserError: a stack failed, or one of the JAX runs diverged.
    """
    if experiment.num_devices > 1 and not experiment.sync_batch_norm:
        raise UserError(
            "--mode=free: the JAX runs use one device, on which --nosync_batch_norm "
            "computes other statistics; judge with --num_devices=1"
        )
    title = f"{experiment.name} {experiment.precision}"
    console.out(f"{title}: training both stacks to the end", highlight=False)

    start = time.perf_counter()
    # Rounding could decide when early stopping ends a run, and runs of different length
    # cannot be compared.
    alone = ["--record=off", "--patience=0"]
    flags = {"jax": alone, "torch": [*alone, *torch_flags]}
    stacks.run(experiment, workdir, modules, flags)
    trained = time.perf_counter()
    spread = measure(dataclasses.replace(experiment, patience=0), data, initial)

    # torch first: it is the one to judge.
    verdicts = {
        stack: judge(read(workdir / stack), spread, threshold)
        for stack in sorted(modules, reverse=True)
    }
    seconds = {
        "training": trained - start,
        f"{RUNS + 1} JAX runs": time.perf_counter() - trained,
    }
    print_verdict(verdicts, title, console)
    print_seconds(seconds, workdir, console)
    write(workdir, experiment, verdicts, seconds)
    return all(verdict.verdict != DIVERGENCE for verdict in verdicts.values())


def print_verdict(
    verdicts: Mapping[str, EndVerdict], title: str, console: Console
) -> None:
    """Prints a table of all comparisons, then a sentence on each stack.

    Column "as far" counts the JAX runs that are as far from the others, "spread" is
    theirs, "float64" their distance from the run in float64, and "detects" the smallest
    error that would have failed. The last three are relative.

    Args:
      verdicts: stack -> verdict; the first is the one to judge.
      title: experiment and precision.
      console: console to print on.
    """
    judged, *others = verdicts
    table = Table(
        title=(
            f"{title}: where training ends, beside {RUNS} JAX runs that start one "
            "ulp apart"
        ),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for header in (
        "",
        f"{judged} z",
        "at",
        "as far",
        *(f"{name} z" for name in others),
        "spread",
        "float64",
        "detects",
    ):
        justify = "left" if header in ("", "at") else "right"
        table.add_column(header, justify=justify, no_wrap=True)
    for label, names in _groups(verdicts[judged].quantities).items():
        table.add_row(label, *_cells(verdicts, names))

    console.print(table)
    for name, verdict in verdicts.items():
        console.out(sentence(name, verdict), highlight=False)


def _groups(quantities: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns label of a table row -> names of the entries it stands for."""
    groups: dict[str, list[str]] = {}
    for name in quantities:
        kind, _, rest = name.partition("/")
        # All tensors of a kind share a row; every loss, count and metric has its own.
        label = KINDS.get(kind, rest or name).replace("_", " ")
        groups.setdefault(label, []).append(name)
    return groups


def _cells(verdicts: Mapping[str, EndVerdict], names: Sequence[str]) -> list[str]:
    """Returns the cells of a row: the entry of largest z, in each verdict."""
    worst_names = [
        max(names, key=lambda name: verdict.quantities[name].z)
        for verdict in verdicts.values()
    ]
    worst, *more = (
        verdict.quantities[name]
        for name, verdict in zip(worst_names, verdicts.values())
    )
    where = worst_names[0].partition("/")[2] if len(names) > 1 else ""
    relative = [
        f"{getattr(worst, kind) / worst.size:.1e}" if worst.size else ""
        for kind in ("spread", "from_float64")
    ]
    return [
        spell_z(worst.z),
        where,
        str(worst.as_far),
        *(spell_z(row.z) for row in more),
        *relative,
        f"{worst.detectable:.1e}" if worst.detectable else "any",
    ]


def sentence(name: str, verdict: EndVerdict) -> str:
    """Returns the verdict on one stack in a sentence.

    Args:
      name: name of the stack.
      verdict: verdict on it.
    """
    z = f"{verdict.worst}, z {spell_z(verdict.max_z)} of {verdict.threshold:g} allowed"
    if verdict.verdict == DIVERGENCE:
        return f"{name}: DIVERGENCE, furthest off is {z}"
    if verdict.verdict == SAME:
        return f"{name}: {SAME}, worst {z}"
    return (
        f"{name}: {CHAOTIC}, worst {z}; JAX's own runs end {verdict.grown:.0f} "
        f"times rounding apart, so a difference below {verdict.detectable:.1%} of "
        "the parameters is not seen"
    )


def print_seconds(
    seconds: Mapping[str, float], workdir: pathlib.Path, console: Console
) -> None:
    """Prints the duration of each stage, and where the files are."""
    stages = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    console.out(f"seconds: {stages}; files: {workdir}", highlight=False)


def write(
    workdir: pathlib.Path,
    experiment: Experiment,
    verdicts: Mapping[str, EndVerdict],
    seconds: Mapping[str, float],
) -> None:
    """Writes verdict.json: the overall verdict, and each stack's under `recordings`."""
    # Overall, the worst of the stacks' verdicts counts.
    order = (SAME, CHAOTIC, DIVERGENCE)
    whole = {
        "mode": "free",
        "experiment": experiment.name,
        "precision": experiment.precision,
        "verdict": max(
            (verdict.verdict for verdict in verdicts.values()), key=order.index
        ),
        "max_z": z_as_json(max(verdict.max_z for verdict in verdicts.values())),
        "recordings": {stack: verdict.as_json() for stack, verdict in verdicts.items()},
        "seconds": seconds,
    }
    artifacts.write_text(workdir / "verdict.json", json.dumps(whole, indent=2) + "\n")
