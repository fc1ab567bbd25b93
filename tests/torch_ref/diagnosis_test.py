"""The diagnosis under DeepSpeed against jaxnn's: the same columns, the same numbers."""

import numpy as np
import pytest

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.diagnosis import MEASURED
from jaxnn.experiment.files import artifacts, diagnostics
from jaxnn.experiment.flags import command_line
from parity.stacks import initial_params
from tests.torch_ref import jobs

FLAGS = (
    "--dataset=iris",
    "--model=mlp",
    "--hidden_sizes=8",
    "--activation=relu",
    "--loss=cross_entropy",
    "--optimizer=adam",
    "--epochs=2",
    "--batch_size=32",
    "--num_devices=1",
    "--initial_scale_power=8",
    "--noplots",
    "--diagnose",
)
RUNS = {
    "fp32-0": ("--precision=fp32", "--zero_stage=0"),
    "fp32-3": ("--precision=fp32", "--zero_stage=3"),
    "fp16-1": ("--precision=fp16", "--zero_stage=1"),
    "fp16-2": ("--precision=fp16", "--zero_stage=2", "--accumulation_steps=2"),
}
TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2}


def experiment(*flags):
    return command_line.parse(["", *FLAGS, *flags], "fp32")[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs from equal parameters; jaxnn's are called `jax-NAME`."""
    folder = tmp_path_factory.mktemp("runs")
    start = folder / "initial.safetensors"
    plain = experiment()
    artifacts.write_params(start, initial_params(plain, load_dataset(plain)))
    given = {
        name: (*FLAGS, *flags, f"--init_params={start}") for name, flags in RUNS.items()
    }
    torch = jobs.start(
        [jobs.job(flags, folder / name) for name, flags in given.items()], folder
    )
    for name, flags in given.items():
        workdir = f"--workdir={folder / f'jax-{name}'}"
        train.main(command_line.parse(["", *flags, workdir], "fp32")[0])
    assert torch.wait() == 0, (folder / "log").read_text()
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_stacks_agree(runs, name):
    ours, theirs = (diagnostics.read(runs / run) for run in (f"jax-{name}", name))
    assert ours is not None
    assert theirs is not None
    assert ours.layers == theirs.layers
    np.testing.assert_array_equal(ours.epochs, theirs.epochs)
    for column in MEASURED:
        np.testing.assert_allclose(
            theirs.measured[column],
            ours.measured[column],
            rtol=TOLERANCES[name[:4]],
            atol=1e-3,
            err_msg=column,
        )
    for column, values in ours.of_network.items():
        np.testing.assert_allclose(
            theirs.of_network[column], values, rtol=1e-2, atol=1e-3, err_msg=column
        )
