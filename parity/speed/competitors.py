"""Who trains: the commands of jaxnn, DeepSpeed and plain PyTorch for one experiment."""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from jaxnn.experiment import cores
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from parity import stacks

JAXNN = "jaxnn"
DEEPSPEED = "deepspeed"
EAGER = "eager"
BEST = "best"
NAMES = (JAXNN, DEEPSPEED, EAGER, BEST)
"""What `--competitors` may hold."""


class Competitor(NamedTuple):
    """One way to train the experiment.

    Attributes:
      kind: of `NAMES`; of kind "best" there are several, and the fastest counts.
      label: its name in tables.
      command: command line, without flagfile and workdir.
      environment: environment of its process.
    """

    kind: str
    label: str
    command: tuple[str, ...]
    environment: dict[str, str]

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        return self.label.replace(",", "").replace(" ", "_")


def chosen(experiment: Experiment, kinds: Sequence[str]) -> list[Competitor]:
    """Returns the competitors of some kinds, in the order of `NAMES`."""
    found = [_jaxnn(experiment), _deepspeed(experiment), plain(EAGER, "tutorial", 0)]
    for variant in ("eager", "compiled"):
        # Threads that wait for each other can cost more than they bring.
        found += [plain(BEST, variant, threads) for threads in thread_counts()]
    return [competitor for competitor in found if competitor.kind in kinds]


def full_command(
    competitor: Competitor, flagfile: pathlib.Path, workdir: pathlib.Path
) -> list[str]:
    """Returns the command line of one run."""
    return [
        *competitor.command,
        f"--flagfile={flagfile}",
        f"--workdir={workdir}",
        "--noplots",
    ]


def flagfile_for(root: pathlib.Path) -> pathlib.Path:
    """Returns the flagfile that all competitors read."""
    return root / artifacts.FLAGS


def _jaxnn(experiment: Experiment) -> Competitor:
    command = stacks.launcher("jax", "jaxnn.train", experiment.num_devices)
    environment = stacks.environment("jax", experiment.num_devices)
    return Competitor(JAXNN, "jaxnn", tuple(command), environment)


def _deepspeed(experiment: Experiment) -> Competitor:
    command = stacks.launcher("torch", "torch_ref.train", experiment.num_devices)
    return Competitor(DEEPSPEED, "DeepSpeed", tuple(command), dict(os.environ))


def plain(
    kind: str, variant: str, threads: int, module: str = "torch_ref.plain"
) -> Competitor:
    """Returns a way of plain PyTorch; 0 threads: torch's default, as tutorials have."""
    command = [sys.executable, "-m", module, f"--variant={variant}"]
    if not threads:
        label = "eager PyTorch"
    else:
        label = f"{variant}, {threads} thread{'s' if threads > 1 else ''}"
        command.append(f"--threads={threads}")
    return Competitor(kind, label, tuple(command), dict(os.environ))


def thread_counts() -> list[int]:
    """Returns the numbers of threads to try: one, and one for each core."""
    return sorted({1, cores.usable()})
