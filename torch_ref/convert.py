"""The torch half of `python -m parity.convert`: DeepSpeed's checkpoint <-> a file of
`jaxnn.experiment.files.handoff`.

    python -m torch_ref.convert --flagfile=RUN/experiment.flags --read=RUN/checkpoints/step_000000300 --handoff=FILE
    python -m torch_ref.convert --flagfile=RUN/experiment.flags --write=NEW_RUN --handoff=FILE

Of several ranks the second is started by the deepspeed launcher, as training is.
"""

import pathlib

from absl import flags

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed.writing import ds_config
from torch_ref import checkpoint, deepspeed_files, handoff, models, train
from torch_ref import engine as engines
from torch_ref.optimizers import OPTIMIZERS


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """One direction or the other."""
    path = pathlib.Path(values["handoff"].value)
    if values["read"].value:
        read(experiment, pathlib.Path(values["read"].value), path)
    else:
        write(experiment, path, pathlib.Path(values["write"].value))


def read(experiment: Experiment, folder: pathlib.Path, path: pathlib.Path) -> None:
    """DeepSpeed's checkpoint -> file; without an engine and on one process, however
    many ranks wrote it.

    Raises:
      UserError: the checkpoint cannot be read, or is of another model.
    """
    model = models.build(experiment, load_dataset(experiment).signature)
    arrays = handoff.from_files(
        experiment, deepspeed_files.open_checkpoint(folder), model
    )
    artifacts.write_arrays(path, arrays)


def write(experiment: Experiment, path: pathlib.Path, workdir: pathlib.Path) -> None:
    """File -> DeepSpeed's checkpoint, written by an engine that holds the state.

    Raises:
      UserError: the file is of another model, or DeepSpeed has no such training.
    """
    train.refuse_what_is_not_here(experiment)
    signature = load_dataset(experiment).signature
    arrays = artifacts.read_arrays(path, "--handoff")
    _, world_size, device = engines.join_ranks()
    config = ds_config(experiment, world_size)
    if experiment.precision == "fp16":
        engines.fp16_kernels(experiment)
    model = models.build(experiment, signature).to(device)
    available, _ = engines.choose_adam(experiment)
    optimizer = OPTIMIZERS[experiment.optimizer](available, model.parameters())
    engine = engines.initialize(model, optimizer, config)
    handoff.into_engine(experiment, arrays, engine, models.build(experiment, signature))
    checkpoint.save(workdir, engine)
    engines.shut_down()


def define_flags(values: flags.FlagValues) -> None:
    """What is converted, beside the flags of torch_ref.train."""
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
        leave=engines.leave,
    )
