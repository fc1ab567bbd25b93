"""Trains one experiment in PyTorch alone, to measure its speed.

    python -m torch_ref.plain --flagfile=FILE --variant=eager --threads=1

Variants: tutorial (a DataLoader, loss.item() at every step), eager (tensors in memory,
rows by index, a fused optimizer), compiled (the same under torch.compile). Writes
summary.json and nothing else. Exit code 2 on bad input or divergence.
"""

import time

import torch
from absl import flags

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError, one_line
from jaxnn.experiment.files import artifacts, locks
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from torch_ref.plain import loops, ways
from torch_ref.plain.work import Work, prepare, require_supported

VARIANTS = ("tutorial", "eager", "compiled")


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Flags -> data -> network -> epochs -> summary."""
    require_supported(experiment)
    if values.variant not in VARIANTS:
        raise UserError(
            f"--variant: unknown value {values.variant!r}; known: {', '.join(VARIANTS)}"
        )
    if values.threads:
        torch.set_num_threads(values.threads)
    work = prepare(experiment, load_dataset(experiment))
    start = time.perf_counter()
    epoch = _epoch(work, values.variant)
    compile_seconds = time.perf_counter() - start
    with locks.released():
        workdir = artifacts.create_workdir(experiment, "plain")
        measured = train(work, epoch) | {
            "experiment": experiment.name,
            "stack": "plain",
            "variant": values.variant,
            "threads": torch.get_num_threads(),
            "compile_seconds": compile_seconds,
            "versions": run_log.versions(("torch", "numpy")),
        }
        artifacts.write_summary(workdir, measured)
    print(f"test loss {measured['test_loss']:.4g}; files: {workdir}")


def train(work: Work, epoch: loops.Epoch) -> dict[str, float]:
    """Trains all epochs; returns what a summary says of them."""
    start = time.perf_counter()
    for number in range(len(work.plan)):
        # What it returns has been read from the device: nothing is under way.
        train_loss, test = epoch(number)
    seconds = time.perf_counter() - start
    count, size = len(work.train[0]), work.experiment.batch_size
    samples = sum(min(count, steps * size) for steps in work.plan)
    return {
        "epochs": len(work.plan),
        "steps": sum(work.plan),
        "train_loss": train_loss,
        "test_loss": test.loss,
        "test_metric": test.metric,
        "train_seconds": seconds,
        "samples_per_second": samples / seconds,
    }


def _epoch(work: Work, variant: str) -> loops.Epoch:
    if variant == "tutorial":
        return loops.tutorial(work)
    try:
        return loops.fast(work, compiled=variant == "compiled")
    # torch.compile raises anything, where there is no compiler or no lowering.
    except Exception as error:
        if variant == "eager":
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"--variant: torch.compile fails: {one_line(lines[0])}"
        ) from None


def define_more(values: flags.FlagValues) -> None:
    """Defines the flags that only this program has."""
    ways.define(values, VARIANTS, "eager")


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(main, __doc__, default_precision="fp32", define_more=define_more)


if __name__ == "__main__":
    command()
