"""Torch half of `python -m parity.convert`: DeepSpeed's checkpoint <-> a handoff file.

    python -m torch_ref.convert --flagfile=RUN/experiment.flags --handoff=FILE \\
        --read=RUN/checkpoints/step_000000300
    python -m torch_ref.convert --flagfile=RUN/experiment.flags --handoff=FILE \\
        --write=NEW_RUN

The file's format stands in jaxnn/experiment/files/handoff.py. `--write` for several
ranks is started by the deepspeed launcher, as training is.
"""

import pathlib

from absl import flags

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed.writing import ds_config
from torch_ref import (
    checkpoint,
    deepspeed_files,
    freezing,
    handoff,
    kernels,
    models,
    ranks,
    train,
)
from torch_ref import engine as engines
from torch_ref.optimizers import OPTIMIZERS


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Converts in one direction or the other."""
    path = pathlib.Path(values.handoff)
    if values.read:
        read(experiment, pathlib.Path(values.read), path)
    else:
        write(experiment, path, pathlib.Path(values.write))


def read(experiment: Experiment, folder: pathlib.Path, path: pathlib.Path) -> None:
    """DeepSpeed's checkpoint -> file.

    Needs no engine, and one process however many ranks wrote the checkpoint.

    Raises:
      UserError: the checkpoint cannot be read, or is of another model.
    """
    model = models.build(experiment, load_dataset(experiment).signature)
    found = deepspeed_files.open_checkpoint(folder)
    artifacts.write_arrays(path, handoff.from_files(experiment, found, model))


def write(experiment: Experiment, path: pathlib.Path, workdir: pathlib.Path) -> None:
    """File -> DeepSpeed's checkpoint, written by an engine that holds the state.

    Raises:
      UserError: the file is of another model, or DeepSpeed has no such training.
    """
    train.require_supported(experiment)
    signature = load_dataset(experiment).signature
    arrays = artifacts.read_arrays(path, "--handoff")
    _, world_size, device = ranks.join()
    config = ds_config(experiment, world_size)
    # Without this DeepSpeed refuses FP16 on a CPU without FP16 instructions.
    if experiment.precision == "fp16":
        kernels.fp16_kernels(experiment)
    model = models.build(experiment, signature).to(device)
    freezing.freeze(experiment, model)
    available, _ = kernels.choose_adam(experiment)
    params = freezing.trained(model)
    optimizer = OPTIMIZERS[experiment.optimizer](available, params)
    engine = engines.initialize_with_extra(
        model, optimizer, config, experiment.ds_extra
    )
    # A second model, because at stage 3 the engine's is partitioned over the ranks.
    whole_model = models.build(experiment, signature)
    handoff.into_engine(experiment, arrays, engine, whole_model)
    checkpoint.save(workdir, engine)
    ranks.shut_down()


def define_flags(values: flags.FlagValues) -> None:
    """Defines what to convert, beside the flags of torch_ref.train."""
    train.define_launcher_flags(values)
    flags.DEFINE_string("handoff", "", "File to write or to read.", flag_values=values)
    flags.DEFINE_string(
        "read", "", "DeepSpeed's checkpoint to read.", flag_values=values
    )
    flags.DEFINE_string(
        "write", "", "Workdir to write DeepSpeed's checkpoint into.", flag_values=values
    )


if __name__ == "__main__":
    command_line.run(
        main,
        __doc__,
        default_precision="fp16",
        define_more=define_flags,
        leave=ranks.leave,
    )
