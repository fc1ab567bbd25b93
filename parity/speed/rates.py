"""How fast many learning rates train at once, beside PyTorch.

    python -m parity.speed.rates --flagfile=launch/experiments/breast_cancer.flags

jaxnn.sweep against PyTorch with the same rates: batched by torch.func.vmap over stacked
parameters, eager and under torch.compile, and one after the other by the fastest plain
loop; each with one thread and with all. As parity.speed, in fresh processes that take
turns. Prints a line for each and the ratios, writes speed.json. Exit code 0 whatever
the ratios are, 2 on bad input.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment
from parity import stacks
from parity.speed import comparison, measuring, settings
from parity.speed.competitors import (
    JAXNN,
    Competitor,
    flagfile_for,
    plain,
    thread_counts,
)
from parity.speed.goals import BATCHED, SEQUENTIAL
from parity.speed.measuring import Result

LOWEST, HIGHEST = 1e-4, 1e-1
VARIANTS = {"vmap": BATCHED, "compiled": BATCHED, "sequential": SEQUENTIAL}
"""Variant of torch_ref.plain.rates -> what it is compared as."""


def main(experiment: Experiment, values: flags.FlagValues) -> int:
    """Measures all competitors; returns the exit code."""
    root = make_folder(experiment)
    who = competitors(experiment, spread(values.count))
    results = measuring.measure(
        who, root, values.rounds, values.most_seconds, lambda line: print(line)
    )
    content = as_json(results)
    artifacts.write_text(root / "speed.json", json.dumps(content, indent=2) + "\n")
    print("\n".join(lines(results, content)))
    print(f"files: {root}")
    return 0


def spread(count: int) -> list[str]:
    """Returns learning rates over three decades, as texts."""
    return [f"{rate:.3g}" for rate in np.geomspace(LOWEST, HIGHEST, count)]


def make_folder(experiment: Experiment) -> pathlib.Path:
    """Creates the folder of the runs with their flagfile; raises UserError if it is."""
    root = pathlib.Path(experiment.workdir or time.strftime("runs/rates-%Y%m%d-%H%M%S"))
    if root.exists():
        raise UserError(f"--workdir: {root} exists; choose another")
    root.mkdir(parents=True)
    artifacts.write_text(flagfile_for(root), options.to_flagfile(experiment))
    return root


def competitors(experiment: Experiment, rates: Sequence[str]) -> list[Competitor]:
    """Returns jaxnn.sweep and every way of PyTorch."""
    grid = f"--grid=learning_rate={','.join(rates)}"
    ours = stacks.launcher("jax", "jaxnn.sweep", experiment.num_devices)
    environment = stacks.environment("jax", experiment.num_devices)
    found = [Competitor(JAXNN, "jaxnn.sweep", (*ours, grid), environment)]
    for variant, kind in VARIANTS.items():
        for threads in thread_counts():
            way = plain(kind, variant, threads, "torch_ref.plain.rates")
            command = (*way.command, f"--rates={','.join(rates)}")
            found.append(way._replace(command=command))
    return found


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Returns the contents of speed.json: medians in seconds, ratios over jaxnn's."""
    ours = comparison.find(results, JAXNN)
    best = {kind: comparison.find(results, kind) for kind in (BATCHED, SEQUENTIAL)}
    return {
        "format": 1,
        JAXNN: ours.median("training") if ours else None,
        **{
            kind: {
                "label": result.competitor.label,
                "seconds": result.median("training"),
                "ratio": comparison.ratio(results, result, "training"),
            }
            for kind, result in best.items()
            if result
        },
    }


def lines(results: Sequence[Result], content: dict[str, Any]) -> list[str]:
    """Returns a line for each competitor, then the ratios."""
    found = []
    for result in results:
        told = f"failed: {result.failure}"
        if result.runs:
            told = (
                f"training {result.median('training'):.3g} s, process "
                f"{result.median('wall'):.2f} s, best test loss "
                f"{result.median('test_loss'):.4g}"
            )
        found.append(f"{result.competitor.label}: {told}")
    for kind in (BATCHED, SEQUENTIAL):
        best = content.get(kind)
        if best and best["ratio"]:
            found.append(
                f"{kind} PyTorch / jaxnn: {best['ratio']:.2f} ({best['label']})"
            )
    return found


def define_more(values: flags.FlagValues) -> None:
    """Defines the flags that only this program has."""
    flags.DEFINE_integer(
        "count", 16, "Learning rates.", lower_bound=1, flag_values=values
    )
    settings.define_rounds(values)


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(main, __doc__, default_precision="fp32", define_more=define_more)


if __name__ == "__main__":
    command()
