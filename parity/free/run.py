"""Lets both stacks train on their own and judges where they end: `--mode=free`.

    z = ||end - mean of JAX's runs|| / max(push * spread of JAX's runs, their distance from float64, rounding, in norm)

JAX's runs start one ulp apart, see `spread`. An end within 8 units is the same
computation. Where the runs themselves end much further apart than rounding moves
anything, the path is chaotic, and the verdict says so: it is then only as sharp as they
are near each other.
"""

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
from parity.free.end import RunEnd, read
from parity.free.spread import RUNS, Spread, deviation, measure
from parity.judging.measure import THRESHOLD, UNEQUAL, spell_z
from parity.noise import norm

SAME, CHAOTIC, DIVERGENCE = (
    "same computation",
    "same computation, chaotic path",
    "divergence",
)
KINDS = {"params": "parameters", "batch_stats": "running statistics"}
TABLE_WIDTH = 120
CHAOS = 8.0
"""Runs whose spread is more than this many times rounding took a chaotic path."""


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
    """Trains both stacks to the end, judges them, prints the verdict and writes
    verdict.json.

    Args:
      experiment: to train; early stopping is switched off.
      data: its data set.
      initial: flat float32 parameters that both start from.
      workdir: holds the flagfile and initial.safetensors.
      modules: stack -> the program that trains it, "jax" and "torch".
      torch_flags: for the torch side alone.
      console: where to print.
      threshold: largest z that passes.

    Returns:
      Whether neither stack diverges.

    Raises:
      UserError: a stack failed, or JAX's runs diverged.
    """
    if experiment.num_devices > 1 and not experiment.sync_batch_norm:
        raise UserError(
            "--mode=free: JAX's runs use one device, where --nosync_batch_norm has "
            "other statistics; judge with --num_devices=1"
        )
    title, start = f"{experiment.name} {experiment.precision}", time.perf_counter()
    console.print(
        f"{title}: training both stacks to the end", highlight=False, soft_wrap=True
    )
    alone = ["--record=off", "--patience=0"]
    stacks.run(
        experiment, workdir, modules, {"jax": alone, "torch": [*alone, *torch_flags]}
    )
    trained = time.perf_counter()
    spread = measure(dataclasses.replace(experiment, patience=0), data, initial)
    verdicts = {
        stack: judge(read(workdir / stack), spread, threshold)
        for stack in sorted(modules, reverse=True)
    }
    seconds = {
        "training": trained - start,
        f"{RUNS + 1} JAX runs": time.perf_counter() - trained,
    }
    print_verdict(verdicts, title, console)
    console.print(
        "seconds: "
        + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
        + f"; files: {workdir}",
        highlight=False,
        soft_wrap=True,
    )
    write(workdir, experiment, verdicts, seconds)
    return all(verdict["verdict"] != DIVERGENCE for verdict in verdicts.values())


def judge(end: RunEnd, spread: Spread, threshold: float = THRESHOLD) -> dict[str, Any]:
    """The verdict on one run.

    Args:
      end: the run's outcome.
      spread: where JAX's runs end.
      threshold: largest z that passes.
    """
    quantities = {
        name: quantity(
            end.get(name),
            runs,
            spread.exact.get(name),
            spread.rounding[name],
            spread.push[name],
            threshold,
        )
        for name, runs in spread.ends.items()
    }
    worst = max(quantities, key=lambda name: quantities[name]["z"])
    params = [row for name, row in quantities.items() if name.startswith("params/")]
    apart, rounding, unit, size = (
        norm(np.array([row[kind] for row in params]))
        for kind in ("spread", "rounding", "unit", "size")
    )
    grown, is_off = _ratio(apart, rounding), quantities[worst]["z"] > threshold
    return {
        "verdict": DIVERGENCE if is_off else CHAOTIC if grown > CHAOS else SAME,
        "max_z": quantities[worst]["z"],
        "worst": worst,
        "threshold": threshold,
        "runs": RUNS,
        "grown": grown,
        "detectable": threshold * _ratio(unit, size),
        "quantities": quantities,
    }


def quantity(
    value: np.ndarray | None,
    runs: np.ndarray,
    exact: np.ndarray | None,
    rounding: float,
    push: float,
    threshold: float,
) -> dict[str, float]:
    """Compares one entry of an outcome with JAX's runs.

    Args:
      value: the run's; None: it has none.
      runs: [runs, ...] of JAX's.
      exact: of the run in float64; None: it has none.
      rounding: how far rounding moves it.
      push: how many times the spread counts.
      threshold: largest z that passes.

    Returns:
      z; distance from the mean; spread, the standard deviation in norm; from_float64,
      the mean's distance; rounding; push; the unit that z counts; how many of JAX's
      runs are as far from the others' mean; the size that these are relative to; and
      the smallest relative error that would have failed, absolute where the size is
      zero.
    """
    mean = runs.mean(axis=0)
    distance = (
        norm(value - mean)
        if value is not None and value.shape == mean.shape
        else np.nan
    )
    spread, size, from_float64 = (
        deviation(runs),
        norm(mean),
        norm(mean - exact) if exact is not None else 0.0,
    )
    unit = max(push * spread, from_float64, rounding)
    others = [norm(run - mean) * len(runs) / (len(runs) - 1) for run in runs]
    return {
        "z": _ratio(distance, unit),
        "distance": distance if np.isfinite(distance) else UNEQUAL,
        "spread": spread,
        "from_float64": from_float64,
        "rounding": rounding,
        "push": push,
        "unit": unit,
        "as_far": sum(other >= distance for other in others),
        "size": size,
        "detectable": threshold * unit / (size or 1.0),
    }


def print_verdict(
    verdicts: Mapping[str, Mapping[str, Any]], title: str, console: Console
) -> None:
    """Prints a table of what was compared, then a sentence on each stack.

    Args:
      verdicts: stack -> verdict, as `judge` returns it; the first is the one to judge.
      title: what was judged.
      console: where to.

    "as far" counts the JAX runs that are as far from the others; "spread" is theirs,
    "float64" their distance from the run in float64; "detects" is the smallest error
    that would have failed. All three are relative.
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
        table.add_column(
            header, justify="left" if header in ("", "at") else "right", no_wrap=True
        )
    for label, names in _groups(verdicts[judged]["quantities"]).items():
        worst, *more = (
            max(
                (
                    verdict["quantities"][name] | {"at": name.partition("/")[2]}
                    for name in names
                ),
                key=lambda row: row["z"],
            )
            for verdict in verdicts.values()
        )
        where = worst["at"] if len(names) > 1 else ""
        relative = (
            f"{worst[kind] / worst['size']:.1e}" if worst["size"] else ""
            for kind in ("spread", "from_float64")
        )
        table.add_row(
            label,
            spell_z(worst["z"]),
            where,
            str(worst["as_far"]),
            *(spell_z(row["z"]) for row in more),
            *relative,
            f"{worst['detectable']:.1e}" if worst["detectable"] else "any",
        )
    wide = (
        console
        if console.is_terminal
        else Console(file=console.file, width=TABLE_WIDTH)
    )
    wide.print(table)
    for name, verdict in verdicts.items():
        console.print(sentence(name, verdict), highlight=False, soft_wrap=True)


def sentence(name: str, verdict: Mapping[str, Any]) -> str:
    """The verdict on one stack as a person reads it."""
    z = (
        f"{verdict['worst']}, z {spell_z(verdict['max_z'])} of "
        f"{verdict['threshold']:g} allowed"
    )
    if verdict["verdict"] == DIVERGENCE:
        return f"{name}: DIVERGENCE, furthest off is {z}"
    if verdict["verdict"] == SAME:
        return f"{name}: {SAME}, worst {z}"
    return (
        f"{name}: {CHAOTIC}, worst {z}; JAX's own runs end {verdict['grown']:.0f} "
        f"times rounding apart, so a difference below {verdict['detectable']:.1%} of "
        "the parameters is not seen"
    )


def write(
    workdir: pathlib.Path,
    experiment: Experiment,
    verdicts: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> None:
    """Writes verdict.json: the whole judgement's verdict on top, each stack's under
    `recordings`."""
    order = (SAME, CHAOTIC, DIVERGENCE)
    whole = {
        "mode": "free",
        "experiment": experiment.name,
        "precision": experiment.precision,
        "verdict": max(
            (verdict["verdict"] for verdict in verdicts.values()), key=order.index
        ),
        "max_z": max(verdict["max_z"] for verdict in verdicts.values()),
        "recordings": verdicts,
        "seconds": seconds,
    }
    artifacts.write_text(workdir / "verdict.json", json.dumps(whole, indent=2) + "\n")


def _groups(quantities: Mapping[str, Any]) -> dict[str, list[str]]:
    """Row of the table -> the entries of an outcome that it stands for."""
    groups: dict[str, list[str]] = {}
    for name in quantities:
        kind, _, rest = name.partition("/")
        label = KINDS.get(kind, rest or name).replace("_", " ")
        groups.setdefault(label, []).append(name)
    return groups


def _ratio(distance: float, unit: float) -> float:
    """distance / unit; UNEQUAL if that is not finite."""
    if distance == 0:
        return 0.0
    return (
        float(distance / unit) if unit > 0 and np.isfinite(distance / unit) else UNEQUAL
    )
