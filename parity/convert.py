"""Converts a run's checkpoint between the stacks: DeepSpeed's to jaxnn's, or back.

    python -m parity.convert --from=RUN --to=NEW_RUN
    python -m parity.convert --from=RUN/checkpoints/step_000000300 --to=NEW_RUN

The direction follows from what RUN holds. NEW_RUN is then a workdir that the other
stack's training continues with `--resume`: masters, moments, counters, loss scale and
running statistics are equal to the bit. DeepSpeed's files, of any ZeRO stage and number
of ranks, are read with `weights_only`: they run no code.

    python -m parity.convert --from=CKPT --port=port.py --to=FOLDER
    python -m parity.convert --from=FOLDER --port=port.py --template=CKPT --to=NEW_CKPT

CKPT is any folder that engine.save_checkpoint wrote, of any program. port.py defines
`convert` and `optimizer`, as for parity.own; without `convert`, names and shapes of
`model` (a flax.linen one with `inputs` to call it with) propose it, and it is printed.
FOLDER is then what parity/own_checkpoint/__init__.py lists: parameters and optax state
in safetensors and in Orbax. NEW_CKPT has the tag, files and partitioning of CKPT and
the values of FOLDER, or of any Orbax checkpoint of {"params", "opt_state"}.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from jaxnn import checkpoint, models, train
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, handoff, trace
from jaxnn.experiment.files.handoff import Handoff
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.loss_scaling import LossScale
from jaxnn.optimizers import OPTIMIZERS, Moments
from jaxnn.train_step import TrainState
from parity import stacks, whole_folder
from parity.own_checkpoint import command as command_with_port

HANDOFF = "handoff.safetensors"
CHECKPOINTS = "checkpoints"
TORCH_HALF = "torch_ref.convert"


class ConversionSource(NamedTuple):
    """A run to convert.

    Attributes:
      workdir: folder of the run.
      deepspeed: folder of DeepSpeed's checkpoint; None if the run is jaxnn's.
      experiment: experiment that was trained.
      data: its data set.
    """

    workdir: pathlib.Path
    deepspeed: pathlib.Path | None
    experiment: Experiment
    data: Dataset


@train.settings_put_back()
def main(values: flags.FlagValues) -> None:
    """Converts --from into --to, which appears whole or not at all."""
    if values.port or values.template:
        command_with_port.main(values)
        return
    target = whole_folder.require_new(values.to)
    source = open_source(values["from"].value or "")
    with whole_folder.beside(target) as partial:
        convert = from_deepspeed if source.deepspeed else to_deepspeed
        epochs, arrays = convert(source, partial)
        flagfile = options.to_flagfile(source.experiment)
        metrics = handoff.metrics_until(source.workdir, epochs)
        artifacts.write_text(partial / artifacts.FLAGS, flagfile)
        artifacts.write_model(artifacts.read_model(source.experiment), partial)
        artifacts.write_text(partial / artifacts.METRICS, metrics)
        (partial / HANDOFF).unlink()
    direction = "DeepSpeed -> jaxnn" if source.deepspeed else "jaxnn -> DeepSpeed"
    print(
        f"{source.deepspeed or source.workdir}, epoch {epochs} of "
        f"{source.experiment.epochs}, {direction}"
    )
    print(handoff.describe(arrays))
    for note in notes(source.experiment):
        print(f"note: {note}")
    print(f"go on with: {next_command(source, target)}")


def open_source(name: str) -> ConversionSource:
    """Opens the run that --from is or belongs to.

    Raises:
      UserError: no run there, or one with frozen parameters.
    """
    folder = pathlib.Path(name)
    is_checkpoint = folder.parent.name == CHECKPOINTS
    workdir = folder.parent.parent if is_checkpoint else folder
    flagfile = workdir / artifacts.FLAGS
    if not name or not flagfile.exists():
        raise UserError(
            f"--from: {name or 'not given'} is neither a run with its "
            f"{artifacts.FLAGS} nor one of its {CHECKPOINTS}/ folders; give the "
            "workdir of a run, or --port for a checkpoint of another program"
        )
    experiment, _ = command_line.parse(["convert", f"--flagfile={flagfile}"], "fp32")
    experiment = artifacts.as_trained(experiment, workdir)
    if experiment.freeze:
        raise UserError(
            f"--from: {name} has frozen parameters (--freeze={experiment.freeze}), of "
            "which DeepSpeed keeps no master; only runs without are converted"
        )
    deepspeed = folder if is_checkpoint else _latest(workdir)
    train.configure(experiment)
    return ConversionSource(workdir, deepspeed, experiment, load_dataset(experiment))


def from_deepspeed(
    source: ConversionSource, target: pathlib.Path
) -> tuple[int, Handoff]:
    """Writes jaxnn's checkpoint of DeepSpeed's; returns epochs done and the state.

    Raises:
      UserError: the checkpoint cannot be read, or is of another model.
    """
    assert source.deepspeed
    launcher = stacks.launcher("torch", TORCH_HALF, 1)
    _run_torch(source, launcher, target, f"--read={source.deepspeed}")
    arrays = artifacts.read_arrays(target / HANDOFF, "--from")
    epochs = _checked(source, arrays)
    checkpoint.save(target, from_handoff(source.experiment, arrays))
    return epochs, arrays


def to_deepspeed(source: ConversionSource, target: pathlib.Path) -> tuple[int, Handoff]:
    """Writes DeepSpeed's checkpoint of jaxnn's newest; returns epochs done and state.

    Raises:
      UserError: the checkpoint cannot be read, or DeepSpeed has no such training.
    """
    experiment = source.experiment
    signature = source.data.signature
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    model = models.build(experiment, signature)
    like, _ = train.start(experiment, model, optimizer, signature)
    try:
        state = checkpoint.restore(source.workdir, like)
    except UserError as error:
        # Restoring names the flag of training; here it is another one.
        raise UserError(str(error).replace("--resume:", "--from:", 1)) from None
    arrays = to_handoff(experiment, jax.tree.map(np.asarray, state))
    epochs = _checked(source, arrays)
    artifacts.write_arrays(target / HANDOFF, arrays)
    # An engine writes the checkpoint, so that it is DeepSpeed's own in every detail.
    launcher = stacks.launcher("torch", TORCH_HALF, experiment.num_devices)
    _run_torch(source, launcher, target, f"--write={target}")
    return epochs, arrays


def from_handoff(experiment: Experiment, arrays: Mapping[str, Any]) -> TrainState:
    """Returns jaxnn's state of a handoff, with structure and dtypes of a fresh one."""
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    moments = {
        name: trace.unflatten(values)
        for name, values in handoff.moments_of(arrays).items()
    }
    return TrainState(
        params=trace.unflatten(trace.select(arrays, "params")),
        batch_stats=trace.unflatten(trace.select(arrays, "batch_stats")),
        opt_state=optimizer.with_moments(Moments(**moments), arrays["optimizer_step"]),
        loss_scale=LossScale(
            scale=arrays["loss_scale"],
            clean_steps=arrays["clean_steps"],
            hysteresis=arrays["hysteresis"],
        ),
        step=arrays["step"],
        updates=arrays["updates"],
    )


def to_handoff(experiment: Experiment, state: TrainState) -> Handoff:
    """Inverse of `from_handoff`."""
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    moments = optimizer.moments(state.opt_state)._asdict()
    # An optimizer without a counter of its own has made as many updates as the run.
    opt_state: Any = state.opt_state
    # A tuple has a method of that name: the fields say whether it is a counter.
    has_counter = "count" in opt_state._fields
    count = opt_state.count if has_counter else state.updates
    return handoff.make(
        trace.flatten(state.params),
        trace.flatten(state.batch_stats),
        {name: trace.flatten(tree) for name, tree in moments.items()},
        step=state.step,
        updates=state.updates,
        optimizer_step=count,
        loss_scale=state.loss_scale.scale,
        clean_steps=state.loss_scale.clean_steps,
        hysteresis=state.loss_scale.hysteresis,
    )


def notes(experiment: Experiment) -> list[str]:
    """Returns what the user should know of DeepSpeed's ZeRO stage 0."""
    if experiment.zero_stage or experiment.precision == "fp32":
        return []
    divided = ""
    rows = "D2"
    if experiment.precision == "fp16":
        divided = (
            "moments of gradients divided by a loss scale that never multiplied them, "
            "and "
        )
        rows = "D1, D2"
    return [
        f"ZeRO stage 0 under DeepSpeed makes {divided}an update of zero gradients "
        f"before training, which Adam counts (MISMATCHES {rows}); what there is was "
        "converted as it is"
    ]


def next_command(source: ConversionSource, target: pathlib.Path) -> str:
    """Returns the command that continues the converted run."""
    every = "" if source.experiment.checkpoint_every else " --checkpoint_every=1"
    return (
        f"{_program(source)} --flagfile={target / artifacts.FLAGS} "
        f"--workdir={target} --resume{every}"
    )


def _program(source: ConversionSource) -> str:
    ranks = source.experiment.num_devices
    if source.deepspeed:
        return "python -m jaxnn.train"
    if ranks <= 1:
        return "python -m torch_ref.train"
    return f"deepspeed --num_accelerators={ranks} --module torch_ref.train"


def _checked(source: ConversionSource, arrays: Mapping[str, np.ndarray]) -> int:
    """Returns the epochs done; raises UserError on a state unfit to continue with."""
    handoff.require_finite(arrays, source.deepspeed or source.workdir)
    samples = len(source.data.train_inputs)
    return handoff.epochs_done(source.experiment, samples, int(arrays["step"]))


def _run_torch(
    source: ConversionSource, launcher: list[str], target: pathlib.Path, *more: str
) -> None:
    """Runs torch_ref.convert; its complaint becomes this program's."""
    command = [
        *launcher,
        f"--flagfile={source.workdir / artifacts.FLAGS}",
        f"--model={source.experiment.model}",
        f"--handoff={target / HANDOFF}",
        *more,
    ]
    stacks.finish(command, TORCH_HALF, "--from")


def _latest(workdir: pathlib.Path) -> pathlib.Path | None:
    """Returns DeepSpeed's newest checkpoint, which a file names; jaxnn has no such."""
    latest = workdir / CHECKPOINTS / "latest"
    return latest.parent / latest.read_text().strip() if latest.is_file() else None


def define_flags(values: flags.FlagValues) -> None:
    """Defines where from and where to."""
    flags.DEFINE_string(
        "from",
        "",
        "Workdir of a run of either stack, whose newest checkpoint is taken, or one of "
        "DeepSpeed's checkpoints in it. With --port: any checkpoint of DeepSpeed.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "to",
        "",
        "Workdir to make for the other stack; folder to make.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "port",
        "",
        "Python file of a port of one's own: `convert`, `optimizer`; where needed "
        "`model`, `inputs`, `groups`.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "template",
        "",
        "With --port: DeepSpeed's checkpoint to fill with --from, a tree of the port.",
        flag_values=values,
    )


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_tool(main, __doc__, define_flags)


if __name__ == "__main__":
    command()
