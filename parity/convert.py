"""Hands a run over from one stack to the other: DeepSpeed's checkpoint becomes one of
jaxnn's, or the reverse.

    python -m parity.convert --from=RUN --to=NEW_RUN
    python -m parity.convert --from=RUN/checkpoints/step_000000300 --to=NEW_RUN

The direction follows from what RUN holds. NEW_RUN is then a workdir that the other
stack's training goes on with under `--resume`: masters, moments, counters, loss scale
and running statistics are equal to the bit. DeepSpeed's files, of any ZeRO stage and
number of ranks, are read with `weights_only`: they run no code.
"""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from jaxnn import checkpoint, models, train
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, handoff
from jaxnn.experiment.files.handoff import Handoff
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS
from parity import jax_state, stacks

HANDOFF = "handoff.safetensors"
CHECKPOINTS = "checkpoints"


class ConversionSource(NamedTuple):
    """What is converted.

    Attributes:
      workdir: of the run.
      deepspeed: the folder of DeepSpeed's checkpoint; None: the run is jaxnn's.
      experiment: that was trained.
      data: its data set.
    """

    workdir: pathlib.Path
    deepspeed: pathlib.Path | None
    experiment: Experiment
    data: Dataset


def main(values: flags.FlagValues) -> None:
    """--from -> state -> --to, which appears whole or not at all."""
    if not values["to"].value:
        raise UserError("--to: not given; name a folder that does not exist")
    target = pathlib.Path(values["to"].value)
    if target.exists():
        raise UserError(f"--to: {target} exists already; name a folder that does not")
    source = open_source(values["from"].value)
    partial = _folder_beside(target)
    try:
        convert = from_deepspeed if source.deepspeed else to_deepspeed
        epochs, arrays = convert(source, partial)
        artifacts.write_text(
            partial / artifacts.FLAGS, options.to_flagfile(source.experiment)
        )
        artifacts.write_text(
            partial / artifacts.METRICS, handoff.metrics_until(source.workdir, epochs)
        )
        (partial / HANDOFF).unlink()
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    print(
        f"{source.deepspeed or source.workdir}, epoch {epochs} of "
        f"{source.experiment.epochs}, "
        f"{'DeepSpeed -> jaxnn' if source.deepspeed else 'jaxnn -> DeepSpeed'}"
    )
    print(handoff.describe(arrays))
    for note in notes(source.experiment):
        print(f"note: {note}")
    print(f"go on with: {next_command(source, target)}")


def open_source(name: str) -> ConversionSource:
    """The run that --from is or belongs to.

    Raises:
      UserError: no run there.
    """
    folder = pathlib.Path(name)
    workdir = folder.parent.parent if folder.parent.name == CHECKPOINTS else folder
    if not name or not (workdir / artifacts.FLAGS).exists():
        raise UserError(
            f"--from: {name or 'not given'} is neither a run with its "
            f"{artifacts.FLAGS} nor one of its {CHECKPOINTS}/ folders; give the "
            "workdir of a run"
        )
    experiment, _ = command_line.parse(
        ["convert", f"--flagfile={workdir / artifacts.FLAGS}"], "fp32"
    )
    deepspeed = folder if workdir != folder else _latest(workdir)
    train.configure(experiment)
    return ConversionSource(workdir, deepspeed, experiment, load_dataset(experiment))


def from_deepspeed(
    source: ConversionSource, target: pathlib.Path
) -> tuple[int, Handoff]:
    """Writes jaxnn's checkpoint of DeepSpeed's; returns the epochs done and the state.

    Raises:
      UserError: the checkpoint cannot be read, or is of another model.
    """
    assert source.deepspeed
    _run_torch(
        source,
        stacks.launcher("torch", "torch_ref.convert", 1),
        target,
        f"--read={source.deepspeed}",
    )
    arrays = artifacts.read_arrays(target / HANDOFF, "--from")
    epochs = _checked(source, arrays)
    checkpoint.save(target, jax_state.from_handoff(source.experiment, arrays))
    return epochs, arrays


def to_deepspeed(source: ConversionSource, target: pathlib.Path) -> tuple[int, Handoff]:
    """Writes DeepSpeed's checkpoint of jaxnn's newest; returns the epochs done and the
    state.

    Raises:
      UserError: the checkpoint cannot be read, or DeepSpeed has no such training.
    """
    optimizer = OPTIMIZERS[source.experiment.optimizer](source.experiment)
    like = train.start(
        source.experiment,
        models.build(source.experiment, source.data.signature),
        optimizer,
        source.data.signature,
    )
    try:
        state = checkpoint.restore(source.workdir, like)
    except UserError as error:
        raise UserError(str(error).replace("--resume:", "--from:", 1)) from None
    arrays = jax_state.to_handoff(source.experiment, jax.tree.map(np.asarray, state))
    epochs = _checked(source, arrays)
    artifacts.write_arrays(target / HANDOFF, arrays)
    launcher = stacks.launcher(
        "torch", "torch_ref.convert", source.experiment.num_devices
    )
    _run_torch(source, launcher, target, f"--write={target}")
    return epochs, arrays


def notes(experiment: Experiment) -> list[str]:
    """What the user is told of DeepSpeed's ZeRO stage 0."""
    if experiment.zero_stage or experiment.precision == "fp32":
        return []
    fp16 = experiment.precision == "fp16"
    divided = (
        "moments of gradients divided by a loss scale that never multiplied them, and "
        if fp16
        else ""
    )
    return [
        f"ZeRO stage 0 under DeepSpeed makes {divided}an update of zero gradients "
        "before training, which Adam counts (MISMATCHES "
        f"{'D1, D2' if fp16 else 'D2'}); what there is was converted as it is"
    ]


def next_command(source: ConversionSource, target: pathlib.Path) -> str:
    """The command that goes on with the converted run."""
    ranks = source.experiment.num_devices
    module = (
        "python -m jaxnn.train"
        if source.deepspeed
        else "python -m torch_ref.train"
        if ranks <= 1
        else (f"deepspeed --num_accelerators={ranks} --module torch_ref.train")
    )
    every = "" if source.experiment.checkpoint_every else " --checkpoint_every=1"
    return (
        f"{module} --flagfile={target / artifacts.FLAGS} --workdir={target} "
        f"--resume{every}"
    )


def _checked(source: ConversionSource, arrays: Mapping[str, np.ndarray]) -> int:
    """The epochs done, of a state that is fit to go on with."""
    handoff.require_finite(arrays, source.deepspeed or source.workdir)
    return handoff.epochs_done(
        source.experiment, len(source.data.train_inputs), int(arrays["step"])
    )


def _run_torch(
    source: ConversionSource, launcher: list[str], target: pathlib.Path, *more: str
) -> None:
    """Runs torch_ref.convert; its complaint is this program's."""
    command = [
        *launcher,
        f"--flagfile={source.workdir / artifacts.FLAGS}",
        f"--handoff={target / HANDOFF}",
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    complaints = [line.partition("error: ")[2] for line in lines if "error: " in line]
    if done.returncode == command_line.BAD_INPUT and complaints:
        raise UserError(f"--from: {complaints[0]}")
    if done.returncode:
        raise RuntimeError(
            "torch_ref.convert failed:\n" + "\n".join(lines[-stacks.LAST_LINES :])
        )


def _latest(workdir: pathlib.Path) -> pathlib.Path | None:
    """DeepSpeed's newest checkpoint, which a file names; jaxnn has no such file."""
    latest = workdir / CHECKPOINTS / "latest"
    return latest.parent / latest.read_text().strip() if latest.is_file() else None


def _folder_beside(target: pathlib.Path) -> pathlib.Path:
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        return folder
    except OSError as error:
        raise UserError(f"--to: cannot write {target}: {error.strerror}") from None


def define_flags(values: flags.FlagValues) -> None:
    """Where from and where to."""
    flags.DEFINE_string(
        "from",
        "",
        "Workdir of a run of either stack, whose newest checkpoint is taken, or one of "
        "DeepSpeed's checkpoints in it.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "to", "", "Workdir to make for the other stack.", flag_values=values
    )


if __name__ == "__main__":
    command_line.run_tool(main, __doc__, define_flags)
